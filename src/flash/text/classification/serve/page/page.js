// The page: what the server is, the three ways to ask it, its errors, and its key.

import { setUpBulk } from "./bulk.js";
import { ask, hasKey, onKeyWanted, setKey } from "./client.js";
import { byId, plural, say, visible } from "./dom.js";
import { setUpSingle } from "./single.js";

const WAYS = ["one", "lines", "file"];
const state = { info: null, fields: null, mode: "one" };

/** Show a sentence of what went wrong; null takes it away. */
function fail(sentence) {
  say(byId("error-text"), sentence ?? "");
  byId("error").hidden = sentence === null;
}

// ---- the three ways ---------------------------------------------------------------------------------------

function choose(mode) {
  state.mode = mode;
  for (const way of WAYS) {
    byId(way).hidden = way !== mode;
    byId(`way-${way}`).checked = way === mode;
  }
  bulk.changed();
}

const begin = setUpSingle(state, fail);
const bulk = setUpBulk(state, fail, choose);

for (const way of WAYS) {
  byId(`way-${way}`).addEventListener("change", () => {
    fail(null);
    choose(way);
  });
}
choose(WAYS.find((way) => byId(`way-${way}`).checked) ?? "one"); // a browser restores what was chosen

if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  say(byId("ctrl"), "⌘");
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
    const form = { one: "one-form", lines: "lines-form", file: "file-form" }[state.mode];
    if (!byId(form).hidden && !event.target.closest("#key-form")) {
      event.preventDefault();
      byId(form).requestSubmit();
    }
  }
});

// ---- the key ----------------------------------------------------------------------------------------------

let tried = false;

onKeyWanted(() => {
  const before = document.activeElement;
  byId("key-panel").hidden = false;
  say(byId("key-why"), tried ? "That key was not taken." : "Who runs the server can give you one.");
  byId("key").value = "";
  byId("key").focus();
  return new Promise((given) => {
    byId("key-form").addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        tried = true;
        byId("key-panel").hidden = true;
        before?.focus();
        given(byId("key").value.trim());
        byId("key").value = "";
        byId("forget").hidden = false;
      },
      { once: true },
    );
  });
});

byId("forget").hidden = !hasKey();
byId("forget").addEventListener("click", () => {
  setKey("");
  tried = false;
  byId("forget").hidden = true;
  say(byId("facts"), "The key is forgotten.");
});

// A link sends no key: what needs one is fetched and shown here.
for (const id of ["metrics-link", "info-link"]) {
  byId(id).addEventListener("click", (event) => {
    if (hasKey() && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      void peek(byId(id).textContent, byId(id).getAttribute("href"));
    }
  });
}
byId("peek-close").addEventListener("click", () => byId("peek").close());

async function peek(title, path) {
  try {
    const content = await ask(path, { plain: true });
    say(byId("peek-title"), title);
    say(byId("peek-text"), content.startsWith("{") ? JSON.stringify(JSON.parse(content), null, 2) : content);
    byId("peek").showModal();
  } catch (error) {
    fail(error.message);
  }
}

// ---- what the server is -----------------------------------------------------------------------------------

async function meet() {
  try {
    const info = await ask("info");
    state.info = info;
    state.fields = info.input_fields?.length > 1 ? info.input_fields : null;
    const number = plural(info.labels.length, "label");
    document.title = `${visible(info.model)} · Flash`;
    say(byId("model"), visible(info.model));
    say(
      byId("about"),
      info.multi_label ? `${number}, any number of which may apply to a text` : `${number}, one of which is each text's`,
    );
    say(byId("facts"), [info.model, info.backbone, `Flash ${info.version}`].filter(Boolean).map(visible).join(" · "));
    begin();
    bulk.begin();
    if (state.fields) {
      leaveOutLines();
    }
  } catch (error) {
    fail(error.message);
  }
}

/** A line cannot hold a text of several fields. */
function leaveOutLines() {
  byId("way-lines").hidden = byId("way-lines").labels[0].hidden = true;
  if (state.mode === "lines") {
    choose("one");
  }
}

byId("retry").addEventListener("click", () => {
  fail(null);
  if (!state.info) {
    void meet();
  } else if (state.mode === "one") {
    byId("one-form").requestSubmit();
  }
});

void meet();
