// Describe the JSON schemas of an OpenAPI document in words, and make examples. Independent of the page.

const DEEPEST = 8;

/** A schema without references; `document` is the whole OpenAPI document. */
export function resolve(schema, document, depth = 0) {
  if (!schema?.$ref || depth > DEEPEST) {
    return schema ?? {};
  }
  const target = schema.$ref
    .replace(/^#\//, "")
    .split("/")
    .map((part) => decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~"))
    .reduce((value, part) => value?.[part], document);
  const { $ref, ...beside } = schema;
  return { ...resolve(target, document, depth + 1), ...beside };
}

/** What values a schema allows, in a few words. */
export function kind(schema, document, depth = 0) {
  const here = resolve(schema, document);
  if (depth > DEEPEST) {
    return "any value";
  }
  const inner = (part) => kind(part, document, depth + 1);
  if (Object.hasOwn(here, "const")) {
    return JSON.stringify(here.const);
  }
  if (here.enum) {
    return here.enum.map((value) => JSON.stringify(value)).join(" or ");
  }
  const choices = here.anyOf ?? here.oneOf;
  if (choices) {
    const kinds = [...new Set(choices.map(inner))];
    return kinds.filter((one) => one !== "null" || kinds.length === 1).join(" or "); // what may be null is optional
  }
  if (here.allOf?.length === 1) {
    return inner(here.allOf[0]);
  }
  if (Array.isArray(here.type)) {
    return here.type.map((type) => inner({ ...here, type })).join(" or ");
  }
  if (here.type === "array") {
    return `list of ${here.items ? inner(here.items) : "any values"}${range(here.minItems, here.maxItems)}`;
  }
  if (here.type === "object" || here.properties) {
    const values = here.additionalProperties;
    return values && typeof values === "object" ? `object of ${inner(values)}` : "object";
  }
  if (here.type === "string") {
    return `text${here.format ? ` (${here.format})` : ""}${range(here.minLength, here.maxLength, " characters")}`;
  }
  if (here.type === "integer" || here.type === "number") {
    const name = here.type === "integer" ? "whole number" : "number";
    return `${name}${range(here.minimum ?? here.exclusiveMinimum, here.maximum ?? here.exclusiveMaximum)}`;
  }
  return { boolean: "true or false", null: "null" }[here.type] ?? "any value";
}

/** What a number lies between, in brackets. */
function range(least, most, unit = "") {
  if (least === undefined && most === undefined) {
    return "";
  }
  if (most === undefined) {
    return ` (${least}${unit} or more)`;
  }
  return least === undefined ? ` (at most ${most}${unit})` : ` (${least} to ${most}${unit})`;
}

/** The fields of an object that a schema allows, of any of its choices, also inside lists: [name, schema, required]. */
export function fields(schema, document, depth = 0) {
  const here = resolve(schema, document);
  if (depth > DEEPEST) {
    return [];
  }
  const found = Object.entries(here.properties ?? {}).map(([name, part]) => [
    name,
    part,
    here.required?.includes(name) ?? false,
  ]);
  const values = typeof here.additionalProperties === "object" ? here.additionalProperties : null; // of a dict
  const parts = [...(here.anyOf ?? []), ...(here.oneOf ?? []), ...(here.allOf ?? []), here.items, values];
  for (const part of parts.filter(Boolean)) {
    for (const field of fields(part, document, depth + 1)) {
      if (!found.some(([name]) => name === field[0])) {
        found.push(field);
      }
    }
  }
  return found;
}

/** The shapes that a body may have: [title, description, schema]; a body of one shape has no title. */
export function shapes(schema, document) {
  const here = resolve(schema, document);
  const choices = here.oneOf ?? here.anyOf ?? [];
  if (choices.length < 2) {
    return [["", "", schema]];
  }
  return choices.map((choice) => {
    const { title, description } = resolve(choice, document);
    return [title && choice.$ref ? title : kind(choice, document), description ?? "", choice];
  });
}

/** A value that a schema allows: its own example where it has one. */
export function example(schema, document, depth = 0) {
  const here = resolve(schema, document);
  const own = [here.example, here.examples?.[0], here.const, here.default, here.enum?.[0]];
  const given = own.find((value) => value !== undefined && value !== null);
  if (given !== undefined || depth > DEEPEST) {
    return given ?? null;
  }
  const inner = (part) => example(part, document, depth + 1);
  const choices = here.anyOf ?? here.oneOf;
  if (choices) {
    return inner(choices[0]);
  }
  if (here.allOf) {
    const values = here.allOf.map(inner);
    return values.every((value) => value && typeof value === "object") ? Object.assign({}, ...values) : values[0];
  }
  if (here.type === "array") {
    return here.items ? [inner(here.items)] : [];
  }
  if (here.type === "object" || here.properties) {
    const members = Object.entries(here.properties ?? {}).filter(([name]) => here.required?.includes(name) ?? true);
    const others = here.additionalProperties;
    const named = others && typeof others === "object" ? [["label", others]] : [];
    return Object.fromEntries([...members, ...named].map(([name, part]) => [name, inner(part)]));
  }
  const number = here.maximum === undefined ? (here.minimum ?? 1) : ((here.minimum ?? 0) + here.maximum) / 2;
  return { string: "text", integer: Math.ceil(number), number, boolean: true }[here.type] ?? null;
}
