// The API reference: /openapi.json to read, with commands to copy.

import { byId, make, say } from "./dom.js";
import { example, fields, kind, resolve, shapes } from "./schema.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const JSON_TYPE = "application/json";
const DEEPEST = 5;

let api = {};

/** Prose: paragraphs, and `code` in backticks. */
function prose(text) {
  const paragraphs = text.trim().split(/\n\s*\n/);
  return make("div", { class: "prose" }, ...paragraphs.map((paragraph) => make("p", {}, ...inline(paragraph))));
}

const inline = (text) => text.split(/`+([^`]+)`+/).map((part, index) => (index % 2 ? make("code", {}, part) : part));

/** Text in a box with a button that copies it. */
function code(text, what) {
  const pre = make("pre", {}, text);
  const button = make("button", { type: "button" }, "Copy");
  button.setAttribute("aria-label", `Copy the ${what}`);
  button.addEventListener("click", async () => {
    const done = await copy(text, pre);
    say(button, done ? "Copied" : "Selected");
    say(byId("said"), done ? `The ${what} is copied.` : `The ${what} is selected; press Ctrl+C.`);
    setTimeout(() => {
      say(button, "Copy");
      say(byId("said"), "");
    }, 3000);
  });
  return make("div", { class: "code" }, pre, button);
}

/** Whether it is on the clipboard; if not, it is selected. A page without HTTPS has no clipboard but the old one. */
async function copy(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}

/** A word of a shell's command line. */
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** JSON in one line, with spaces; a line end in it is none of a string's, where it would be \n written out. */
const line = (value) =>
  JSON.stringify(value, null, 1)
    .replace(/([[{])\n\s*/g, "$1")
    .replace(/\n\s*([\]}])/g, "$1")
    .replace(/\n\s*/g, " ");

/** JSON to read: in one line where it fits. */
const pretty = (value) => (line(value).length < 72 ? line(value) : JSON.stringify(value, null, 2));

function curl(method, path, operation, body) {
  const url = new URL(`.${path}`, document.baseURI).href;
  const sends = method === "get" || (method === "post" && body !== undefined) ? "curl" : `curl -X ${method.toUpperCase()}`;
  const lines = [`${sends} ${/^[\w:/.\-~%@]+$/.test(url) ? url : shell(url)}`];
  if ((operation.security ?? api.security ?? []).length) {
    lines.push('-H "Authorization: Bearer $FLASH_API_KEY"');
  }
  if (body !== undefined) {
    lines.push(`-H ${shell(`Content-Type: ${JSON_TYPE}`)}`, `-d ${shell(line(body))}`);
  }
  return lines.join(" \\\n  ");
}

/** The fields that a schema has, with those of fields. */
function fieldList(schema, depth = 0) {
  const found = depth > DEEPEST ? [] : fields(schema, api);
  if (found.length === 0) {
    return null;
  }
  const items = found.map(([name, part, required]) => {
    const here = resolve(part, api);
    const line = make(
      "div",
      { class: "field" },
      make("b", {}, name),
      make("span", { class: "kind" }, kind(part, api)),
      required ? make("span", { class: "must" }, "required") : null,
      here.default === undefined || here.default === null
        ? null
        : make("span", { class: "kind" }, `default ${JSON.stringify(here.default)}`),
    );
    return make("li", {}, line, here.description ? prose(here.description) : null, fieldList(part, depth + 1));
  });
  return make("ul", { class: "fields" }, ...items);
}

/** A body's shapes, each with its fields and, where asked for, examples. */
function bodyPart(content, show) {
  const found = shapes(content.schema, api);
  return found.flatMap(([title, description, schema]) => {
    const list = fieldList(schema);
    const parts = [];
    if (title) {
      parts.push(make("p", { class: "shape" }, make("b", {}, title), description ? ` ${description}` : ""));
    }
    if (list || !title) {
      parts.push(list ?? make("p", { class: "kind" }, kind(schema, api)));
    }
    const examples = show ? examplesOf({ ...(title ? {} : content), schema }) : [];
    return [...parts, ...examples.map((value) => show(value, title))];
  });
}

/** The examples of a body: those of the document, or one made from its schema. */
function examplesOf(content) {
  if (content.examples) {
    return Object.values(content.examples).map((one) => resolve(one, api).value);
  }
  if (content.example !== undefined) {
    return [content.example];
  }
  const { examples } = resolve(content.schema, api);
  return Array.isArray(examples) ? examples : [example(content.schema, api)];
}

function requestPart(method, path, operation) {
  const command = (body, title) => code(curl(method, path, operation, body), `command for ${path}${title ? `, ${title}` : ""}`);
  const content = operation.requestBody ? resolve(operation.requestBody, api).content?.[JSON_TYPE] : null;
  const parameters = (operation.parameters ?? []).map((one) => resolve(one, api));
  const parts = [];
  if (parameters.length) {
    const schema = {
      properties: Object.fromEntries(parameters.map((one) => [one.name, { description: one.description, ...one.schema }])),
      required: parameters.filter((one) => one.required).map((one) => one.name),
    };
    parts.push(make("h3", {}, "Parameters"), fieldList(schema));
  }
  if (content) {
    return [...parts, make("h3", {}, "Request"), ...bodyPart(content, command)];
  }
  return [...parts, make("h3", {}, "Request"), command(undefined, "")];
}

function responsePart(path, operation) {
  return Object.entries(operation.responses ?? {}).map(([status, one], index) => {
    const response = resolve(one, api);
    const inside = make("div", {});
    for (const [type, content] of Object.entries(response.content ?? {})) {
      const show = index === 0 ? (value, name) => code(pretty(value), `answer of ${path}${name ? `, ${name}` : ""}`) : null;
      inside.append(...(type === JSON_TYPE ? bodyPart(content, show) : [make("p", { class: "kind" }, type)]));
    }
    for (const [name, header] of Object.entries(response.headers ?? {})) {
      inside.append(make("p", { class: "kind" }, make("code", {}, name), ` ${resolve(header, api).description ?? ""}`));
    }
    if (!inside.hasChildNodes()) {
      inside.append(make("p", { class: "kind" }, "no body"));
    }
    const title = make("summary", {}, make("b", {}, status), " ", ...inline(response.description ?? ""));
    return make("details", { open: index === 0 }, title, inside);
  });
}

function endpoint(method, path, operation, id) {
  const description = operation.description?.trim();
  const summary = operation.summary?.trim();
  const section = make(
    "section",
    { class: "endpoint", id, "aria-labelledby": `${id}-title` },
    make("h2", { id: `${id}-title` }, make("span", { class: "method" }, method.toUpperCase()), path),
    summary ? make("p", { class: "summary" }, ...inline(summary)) : null,
    description && description !== summary ? prose(description) : null,
  );
  section.append(...requestPart(method, path, operation).filter(Boolean));
  const responses = responsePart(path, operation);
  if (responses.length) {
    section.append(make("h3", {}, "Answers"), ...responses);
  }
  return section;
}

function render() {
  const { title, version, description } = api.info ?? {};
  say(byId("title"), title ?? "API reference");
  say(byId("about"), version ? `API reference, version ${version}` : "API reference");
  document.title = `${title ?? "API"} · reference`;
  if (description) {
    byId("intro").append(prose(description));
  }
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths ?? {})) {
    for (const method of METHODS.filter((name) => item[name])) {
      const tag = item[method].tags?.[0] ?? "";
      groups.set(tag, [...(groups.get(tag) ?? []), [method, path, item[method]]]);
    }
  }
  for (const [tag, operations] of groups) {
    const list = make("ul", {});
    for (const [method, path, operation] of operations) {
      const id = `${method}${path}`.replace(/[^\w]+/g, "-").replace(/-$/, "");
      byId("endpoints").append(endpoint(method, path, operation, id));
      const link = make("a", { href: `#${id}` }, make("span", { class: "method" }, method.toUpperCase()), path);
      list.append(make("li", {}, link));
    }
    if (tag) {
      byId("contents").append(make("h2", { class: "heading" }, tag));
    }
    byId("contents").append(list);
  }
  if (location.hash) {
    document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  }
}

try {
  const response = await fetch("openapi.json");
  if (!response.ok) {
    throw new Error(`The server answered ${response.status} ${response.statusText}`.trimEnd());
  }
  api = await response.json();
  render();
} catch (error) {
  byId("error").hidden = false;
  say(byId("error-text"), `The description of the API cannot be read. ${error.message}`);
}
