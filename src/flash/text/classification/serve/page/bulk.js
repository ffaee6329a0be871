// Several texts at once, one per line or out of a CSV file: a table of answers to read and to download.

import { CsvError, decode, findDelimiter, findTexts, formatRow, joinLabels, readTable } from "./csv.js";
import { byId, count, listed, make, oneForEach, percent, plural, say, shortest, visible, words } from "./dom.js";
import { Job } from "./job.js";

const PAGE = 100; // rows of the table until more are asked for
const WIDE = 12; // labels that have a column of their own each; of more, only those that apply are shown
const CUT = 400; // characters of a text in the table
const LARGEST = 256 * 2 ** 20; // bytes of a file
const NAMED = 8; // labels in the summary

/** Wire both forms and the table. `state` is that of `setUpSingle`; `fail` shows an error or null. */
export function setUpBulk(state, fail, choose) {
  let file = null; // {name, text, encoding, delimiter, names, rows}
  let selects = [byId("column")]; // one for each field of a text
  let work = null; // {mode, name, names, rows, columns, job, controller}
  let shown = 0;
  let limit = PAGE;

  // ---- one per line -----------------------------------------------------------------------------------------

  const lines = () => byId("lines-text").value.split(/\r\n|\r|\n/).filter((line) => line.trim() !== "");

  byId("lines-text").addEventListener("input", () => say(byId("lines-note"), plural(lines().length, "text")));
  byId("lines-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const rows = lines().map((line) => [line]);
    if (rows.length === 0) {
      fail("There is no text yet: type or paste some, one per line.");
    } else {
      start("lines", "texts", ["text"], rows, [0]);
    }
  });

  // ---- a file ---------------------------------------------------------------------------------------------

  async function open(chosen) {
    fail(null);
    choose("file");
    file = null;
    byId("file-form").hidden = true;
    if (chosen.size > LARGEST) {
      fail(`${chosen.name} has ${count(Math.round(chosen.size / 2 ** 20))} MiB, too much for a page; type flash predict MODEL --input ${chosen.name}`);
      return;
    }
    try {
      const { text, encoding } = decode(new Uint8Array(await chosen.arrayBuffer()));
      file = { name: chosen.name, text, encoding };
      byId("delimiter").value = findDelimiter(text);
      split();
      byId("file-form").hidden = false;
      (selects.find((select) => select.value === "") ?? byId("file-go")).focus();
    } catch (error) {
      file = null;
      fail(error instanceof CsvError ? error.message : `${chosen.name} cannot be read: ${error.message}`);
    }
  }

  /** Make a table of the file with the delimiter that is chosen now. */
  function split() {
    Object.assign(file, readTable(file.text, byId("delimiter").value));
    const labels = state.info?.labels.map(({ label }) => label) ?? [];
    const found = state.fields?.map((field) => file.names.indexOf(field)) ?? [findTexts(file.names, labels)];
    selects.forEach((select, place) => {
      const options = file.names.map((name, index) => make("option", { value: String(index) }, visible(name)));
      const none = make("option", { value: "" }, "choose");
      select.replaceChildren(...(found[place] < 0 ? [none] : []), ...options);
      select.value = found[place] < 0 ? "" : String(found[place]);
    });
    preview();
  }

  /** What keeps the chosen columns from being the fields of a text; "" where nothing does. */
  function complaint(columns) {
    const missing = (state.fields ?? []).filter((field, place) => columns[place] === "").map((field) => `'${visible(field)}'`);
    if (missing.length > 0) {
      const [noun, place] = missing.length > 1 ? ["columns", "their places"] : ["column", "its place"];
      return `. It has no ${noun} ${listed(missing).join("")}: choose the ${noun} to read in ${place}.`;
    }
    return new Set(columns).size < columns.length ? ". One column is chosen for two fields: choose another for one of them." : "";
  }

  function preview() {
    const columns = selects.map((select) => select.value);
    const problem = complaint(columns);
    const ready = problem === "" && !columns.includes("");
    const cells = (row) => columns.map((column) => row[column].slice(0, CUT));
    const texts = ready ? file.rows.slice(0, 3).map((row) => cells(row).filter(Boolean).join(" · ")) : [];
    say(
      byId("file-facts"),
      `${visible(file.name)}: ${plural(file.rows.length, "row")}, ${plural(file.names.length, "column")}, ${file.encoding}${problem}`,
    );
    byId("preview-box").hidden = texts.length === 0;
    byId("preview").replaceChildren(...texts.map((text) => make("li", { dir: "auto" }, visible(text))));
    say(byId("file-go"), `Classify ${plural(file.rows.length, "text")}`);
    byId("file-go").disabled = !ready || file.rows.length === 0;
  }

  byId("csv").addEventListener("change", () => {
    const [chosen] = byId("csv").files;
    if (chosen) {
      void open(chosen).then(() => {
        byId("csv").value = ""; // the same file can be chosen again
      });
    }
  });
  byId("column").addEventListener("change", preview);
  byId("delimiter").addEventListener("change", () => {
    fail(null);
    try {
      split();
    } catch (error) {
      byId("file-go").disabled = true;
      fail(error.message);
    }
  });
  byId("file-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start("file", file.name.replace(/\.[^.]*$/, "") || "texts", file.names, file.rows, selects.map((select) => Number(select.value)));
  });

  const brings = (event) => event.dataTransfer?.types.includes("Files") ?? false;
  document.addEventListener("dragover", (event) => {
    if (brings(event)) {
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      document.body.classList.add("dropping");
    }
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) {
      document.body.classList.remove("dropping");
    }
  });
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    if (brings(event)) {
      event.preventDefault();
      const [dropped] = event.dataTransfer.files;
      if (dropped) {
        void open(dropped);
      }
    }
  });

  // ---- the work -------------------------------------------------------------------------------------------

  function start(mode, name, names, rows, columns) {
    fail(null);
    if (!state.info) {
      fail("The labels are not known yet: the server did not answer. Reload the page.");
      return;
    }
    work?.controller?.abort();
    const texts = rows.map((row) => (state.fields ? columns.map((column) => row[column]) : row[columns[0]]));
    work = { mode, name, names, rows, columns, job: new Job(texts, state.info), controller: null };
    [shown, limit] = [0, PAGE];
    head();
    void go();
  }

  async function go() {
    const mine = work;
    const controller = new AbortController();
    mine.controller = controller;
    fail(null);
    const began = performance.now();
    const first = mine.job.next;
    const told = (pause) => {
      if (mine === work) {
        update(pause, (performance.now() - began) / 1000, first);
      }
    };
    told(0);
    try {
      await mine.job.run(controller.signal, told);
    } catch (error) {
      if (mine === work && !controller.signal.aborted) {
        fail(error.message);
      }
    }
    mine.controller = null;
    if (mine === work) {
      const held = document.activeElement === byId("job-stop");
      update(0, 0, first);
      if (held) {
        byId(mine.job.finished ? "job-save" : "job-go-on").focus();
      }
    }
  }

  /** Show how far it is, and the rows that are new. */
  function update(pause, seconds, first) {
    const { job, mode, controller } = work;
    byId("job").hidden = mode !== state.mode;
    byId("job-progress").hidden = byId("job-far").hidden = controller === null;
    byId("job-progress").max = job.texts.length;
    byId("job-progress").value = job.next;
    byId("job-stop").hidden = controller === null;
    byId("job-go-on").hidden = controller !== null || job.finished;
    byId("job-save").disabled = job.next === 0;
    if (controller === null) {
      conclude();
    } else {
      const far = `${count(job.next)} of ${plural(job.texts.length, "text")}`;
      const left = (seconds / Math.max(job.next - first, 1)) * (job.texts.length - job.next);
      const time = left > 5 && seconds > 2 ? `, about ${span(left)} left` : "";
      say(byId("job-far"), `${far}${time}`);
      say(byId("job-status"), pause ? `The server is busy; going on in ${plural(Math.ceil(pause), "second")}.` : "");
    }
    const upto = Math.min(job.next, limit);
    const rows = [];
    for (; shown < upto; shown += 1) {
      rows.push(tableRow(shown));
    }
    byId("answers").append(...rows);
    const hidden = job.next - shown;
    byId("job-more").hidden = hidden <= 0;
    say(byId("job-more"), `Show ${count(Math.min(hidden, PAGE))} more of ${plural(hidden, "row")}`);
  }

  /** The sentence when it has ended. */
  function conclude() {
    const { job } = work;
    const { answered, labelled, problems, counts } = job.summary();
    const common = [...counts].filter(([, number]) => number > 0).sort((one, other) => other[1] - one[1]);
    const named = common.slice(0, NAMED).map(([label, number]) => `${visible(label)} (${count(number)})`);
    if (common.length > NAMED) {
      named.push(plural(common.length - NAMED, "more label"));
    }
    const parts = [];
    if (!job.finished) {
      parts.push(`Stopped after ${count(job.next)} of ${plural(job.texts.length, "text")}.`);
    }
    if (state.info.multi_label) {
      parts.push(`${count(labelled)} of ${plural(answered, "text")} ${labelled === 1 ? "has" : "have"} a label${named.length ? ":" : "."}`);
    } else {
      parts.push(`${plural(answered, "text")} answered${named.length ? ":" : "."}`);
    }
    if (named.length) {
      parts.push(`${listed(named).join("")}.`);
    }
    if (problems) {
      parts.push(`${plural(problems, "text")} could not be answered.`);
    }
    say(byId("job-status"), parts.join(" "));
  }

  function head() {
    const { labels } = state.info;
    const wide = labels.length <= WIDE;
    const cell = (child, kind) => make("th", { scope: "col", class: kind }, child);
    byId("answers-head").replaceChildren(
      cell("Row", "number"),
      ...(state.fields?.map((field) => cell(words(field), "text")) ?? [cell("Text", "text")]),
      cell("Labels", "labels"),
      ...(wide ? labels.map(({ label }) => cell(words(label), "number")) : [cell("Most probable", "labels")]),
    );
    byId("answers").replaceChildren();
    byId("preview-box").hidden = true;
    byId("job-table").scrollTo(0, 0);
  }

  function tableRow(index) {
    const { rows, columns, job } = work;
    const { labels } = state.info;
    const answer = job.answers[index];
    const texts = columns.map((column) => rows[index][column]);
    const cells = [
      make("th", { scope: "row", class: "number" }, count(index + 1)),
      ...texts.map((text) => make("td", { class: "text", dir: "auto" }, visible(text.length > CUT ? `${text.slice(0, CUT)}…` : text))),
    ];
    if (answer.problem) {
      const width = labels.length <= WIDE ? labels.length + 1 : 2;
      cells.push(make("td", { class: "problem", colspan: String(width) }, `! ${answer.problem}`));
      return make("tr", {}, ...cells);
    }
    const applies = new Set(answer.labels);
    const names = answer.labels.map((label) => make("span", { class: "label" }, words(label)));
    cells.push(make("td", { class: "labels" }, ...(names.length ? names : [make("span", { class: "none" }, "none")])));
    if (labels.length <= WIDE) {
      labels.forEach(({ label }, place) => {
        const yes = applies.has(label);
        const number = percent(answer.scores[place]);
        cells.push(
          make("td", { class: yes ? "number yes" : "number" }, yes ? make("span", { class: "unseen" }, "applies: ") : null, number),
        );
      });
    } else {
      const order = [...labels.keys()].sort((one, other) => answer.scores[other] - answer.scores[one]).slice(0, 3);
      const top = order.map((place) => make("span", { class: "best" }, make("span", {}, percent(answer.scores[place])), words(labels[place].label)));
      cells.push(make("td", { class: "labels" }, ...top));
    }
    return make("tr", {}, ...cells);
  }

  byId("job-stop").addEventListener("click", () => work?.controller?.abort());
  byId("job-go-on").addEventListener("click", () => void go());
  byId("job-more").addEventListener("click", () => {
    limit += PAGE;
    const first = shown;
    update(0, 0, work.job.next);
    byId("answers").children[first]?.scrollIntoView({ block: "nearest" });
  });
  byId("job-save").addEventListener("click", () => {
    const { name, names, rows, job } = work;
    const parts = download(names, rows, job, byId("spreadsheet").checked);
    const link = make("a", { download: `${name}-labels.csv`, href: URL.createObjectURL(new Blob(parts, { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });

  return {
    /** The fields of a text are known now. */
    begin() {
      if (state.fields) {
        selects = oneForEach(byId("column"), state.fields, "Column of ");
        for (const select of selects.slice(0, -1)) {
          select.addEventListener("change", preview);
        }
        if (file?.names) {
          split();
        }
      }
    },
    /** Another of the three ways is chosen. */
    changed() {
      byId("job").hidden = work === null || work.mode !== state.mode;
    },
    /** The server has other labels: answers of before belong to none of them. */
    reset() {
      work?.controller?.abort();
      work = null;
      byId("job").hidden = true;
    },
  };
}

/** The file to save: the rows as they came, then what `flash predict` adds, for the rows that had their turn. */
export function download(names, rows, job, spreadsheet) {
  const taken = new Set(names);
  const unused = (name) => {
    let free = name;
    while (taken.has(free)) {
      free = `predicted_${free}`;
    }
    taken.add(free);
    return free;
  };
  const answers = job.answers.slice(0, job.next);
  const wrong = answers.some((answer) => answer.problem);
  const added = ["labels", ...job.labels.map((label) => `${label}_probability`), ...(wrong ? ["problem"] : [])];
  const parts = [spreadsheet ? "\ufeff" : "", formatRow([...names, ...added.map(unused)], spreadsheet)];
  answers.forEach((answer, index) => {
    const cells = answer.problem
      ? Array(1 + job.labels.length).fill("")
      : [joinLabels(job.labels.filter((label) => answer.labels.includes(label))), ...Array.from(answer.scores, shortest)];
    if (wrong) {
      cells.push(answer.problem ?? "");
    }
    parts.push(formatRow([...rows[index], ...cells], spreadsheet));
  });
  return parts;
}

/** Seconds in words. */
function span(seconds) {
  return seconds < 90 ? plural(Math.round(seconds), "second") : plural(Math.round(seconds / 60), "minute");
}
