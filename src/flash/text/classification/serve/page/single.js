// One text: every label's probability against its threshold, as one types.

import { askPatiently } from "./client.js";
import { byId, count, listed, make, oneForEach, percent, plural, say, SPACE, visible, words } from "./dom.js";
import { bodyOf, characters, problemOf, whole } from "./job.js";

const PAUSE = 250; // milliseconds without a key before the server is asked
const SHOWN = 15; // labels, until all are asked for
const NAMED = 6; // labels in the sentence

const EXAMPLES = [
  ["Thank-you", "Thank you for your help with the draft, you are very kind. I like the new picture."],
  ["Insult", "You absolute turnip, only a clod like you would write that about the harbour."],
  ["Threat", "I know where you live. One more word about the tram network and you will regret it."],
  ["Quarrel", "I disagree about old maps, and your article is a bit long, but please do not go away."],
  ["Ticket", "My invoice for March was charged twice, and the receipt shows the old address."],
];

/**
 * Wire the form of one text. `state.info` is the server's /info once it is known, `state.fields` the names of a text's
 * fields where it has several, else null; `fail` shows an error or null.
 */
export function setUpSingle(state, fail) {
  const text = byId("text");
  let areas = [text]; // one for each field
  const rows = new Map();
  let timer = 0;
  let controller = null;
  let answer = null; // {labels: Set, scores}
  let expanded = false;

  /** What is typed: one string, or those of the fields. */
  const typed = () => (state.fields ? areas.map((area) => area.value) : text.value);
  const blank = () => areas.every((area) => area.value.trim() === "");

  async function classify() {
    clearTimeout(timer);
    controller?.abort();
    controller = null;
    const asked = typed();
    fail(null);
    if (!state.info || blank()) {
      answer = null;
      show();
      return;
    }
    const problem = problemOf(asked, state.info.limits);
    if (problem) {
      answer = null;
      show();
      fail(`This text is ${problem}.`);
      return;
    }
    const mine = new AbortController();
    controller = mine;
    byId("result").setAttribute("aria-busy", "true");
    try {
      const waiting = (seconds) => say(byId("single-note"), `The server is busy; asking again in ${plural(Math.ceil(seconds), "second")}.`);
      const { results } = await askPatiently("v1/classify", { body: bodyOf([asked]), signal: mine.signal, waiting });
      answer = { labels: new Set(results[0].labels), scores: results[0].scores };
      show();
    } catch (error) {
      if (!mine.signal.aborted) {
        answer = null; // the bars of another text would mislead
        show();
        fail(error.message);
      }
    } finally {
      if (controller === mine) {
        controller = null;
        byId("result").setAttribute("aria-busy", "false");
        note();
      }
    }
  }

  function note() {
    const length = characters(whole(typed()));
    say(byId("single-note"), length > 200 ? plural(length, "character") : "Answered as you type.");
  }

  function show() {
    if (!state.info) {
      return;
    }
    const { labels, multi_label: several } = state.info;
    const entries = labels.map(({ label, threshold }) => ({
      label,
      threshold,
      applies: answer?.labels.has(label) ?? false,
      score: answer && Object.hasOwn(answer.scores, label) ? answer.scores[label] : null,
    }));
    if (answer) {
      entries.sort((one, other) => (other.score ?? -1) - (one.score ?? -1));
    }
    sentence(entries, several);

    const query = byId("filter").value.trim().toLowerCase();
    const found = entries.filter(({ label }) => label.toLowerCase().includes(query));
    const some = query || expanded ? found : found.filter(({ applies }, index) => index < SHOWN || applies);
    byId("filter-box").hidden = labels.length <= SHOWN;
    say(byId("filter-count"), query ? `${count(found.length)} of ${plural(labels.length, "label")}` : "");
    byId("more").hidden = Boolean(query) || labels.length <= SHOWN;
    say(byId("more"), expanded ? "Show fewer" : `Show all ${plural(labels.length, "label")}`);
    byId("more").setAttribute("aria-expanded", String(expanded));

    const body = byId("bars");
    some.forEach((entry, index) => {
      if (!rows.has(entry.label)) {
        rows.set(entry.label, newRow(entry, several));
      }
      const row = rows.get(entry.label);
      fill(row, entry, several);
      if (body.children[index] !== row.element) {
        body.insertBefore(row.element, body.children[index] ?? null);
      }
    });
    while (body.children.length > some.length) {
      body.lastChild.remove();
    }
  }

  /** The answer in words, announced when it changes. */
  function sentence(entries, several) {
    const verdict = byId("verdict");
    let parts;
    if (!answer) {
      parts = [several ? `Which of ${plural(entries.length, "label")} apply?` : `Which of ${plural(entries.length, "label")} is it?`];
    } else {
      const names = entries.filter(({ applies }) => applies).map(({ label }) => make("strong", {}, words(label)));
      const rest = names.length > NAMED ? names.splice(NAMED - 1).length : 0;
      const subjects = rest ? [...names, plural(rest, "more label")] : names;
      if (subjects.length === 0) {
        parts = ["No label applies."];
      } else if (several) {
        parts = [...listed(subjects), subjects.length > 1 ? " apply." : " applies."];
      } else {
        parts = ["Most probably ", ...listed(subjects), "."];
      }
    }
    const draft = make("p", {}, ...parts);
    if (draft.innerHTML !== verdict.innerHTML) {
      verdict.replaceChildren(...draft.childNodes);
    }
    verdict.classList.toggle("open", !answer);
  }

  byId("one-form").addEventListener("input", (event) => {
    clearTimeout(timer);
    note();
    if (!event.isComposing) {
      timer = setTimeout(classify, PAUSE);
    }
  });
  byId("one-form").addEventListener("compositionend", () => {
    clearTimeout(timer);
    timer = setTimeout(classify, PAUSE);
  });
  byId("one-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void classify();
  });
  byId("filter").addEventListener("input", show);
  byId("more").addEventListener("click", () => {
    expanded = !expanded;
    show();
  });
  for (const [name, example] of EXAMPLES) {
    const button = make("button", { type: "button", class: "chip" }, name);
    button.addEventListener("click", () => {
      areas.forEach((area) => {
        area.value = area === text ? example : "";
      });
      note();
      void classify();
    });
    byId("examples").append(button);
  }

  /** The labels are known now. */
  return function begin() {
    const several = state.info.multi_label;
    if (state.fields) {
      areas = oneForEach(text, state.fields);
      areas.forEach((area) => {
        area.rows = area === text ? 6 : 2;
        area.removeAttribute("placeholder");
      });
    }
    byId("bars-table").classList.toggle("single-label", !several);
    byId("legend").hidden = !several;
    byId("result").hidden = false;
    rows.clear();
    byId("bars").replaceChildren();
    show();
    if (!blank()) {
      void classify();
    }
  };
}

/** A label's row: name, bar with a mark at the threshold, numbers, and in words whether it applies. */
function newRow({ label, threshold }, several) {
  const bar = make("div", { class: "bar" });
  const mark = make("div", { class: "mark" });
  const track = make("div", { class: "track", "aria-hidden": "true" }, bar, several ? mark : null);
  mark.style.left = `${100 * threshold}%`;
  const probability = make("td", { role: "cell", class: "number probability" });
  const verdict = make("td", { role: "cell", class: "verdict" });
  const element = make(
    "tr",
    { role: "row" },
    make("th", { role: "rowheader", scope: "row", title: visible(label) }, words(label)),
    make("td", { role: "cell", class: "graph" }, track),
    probability,
    several ? make("td", { role: "cell", class: "number threshold" }, percent(threshold).replace(".0", "")) : null,
    verdict,
  );
  return { element, bar, probability, verdict };
}

function fill(row, { applies, score, threshold }, several) {
  row.element.classList.toggle("applies", applies);
  row.bar.style.width = `${100 * (score ?? 0)}%`;
  say(row.probability, score === null ? "" : percent(score));
  if (score === null) {
    say(row.verdict, "");
  } else if (applies) {
    say(row.verdict, `✓${SPACE}${several ? "applies" : "most probable"}`);
  } else {
    say(row.verdict, several ? (score < threshold ? "below" : "does not apply") : "");
  }
}
