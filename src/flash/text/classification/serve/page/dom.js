// Elements and numbers: what every part of the pages shares. Whatever is shown goes in as text, never as HTML.

/** The element of this id, which exists. */
export const byId = (id) => document.getElementById(id);

/** A new element with attributes and children; strings become text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Somebody's own words: kept together whatever their direction is, and control characters made visible. */
export const words = (text) => make("bdi", {}, visible(text));

/** The text with control characters other than tabs and ends of lines as their pictures: U+0000 as ␀. */
export const visible = (text) =>
  // eslint-disable-next-line no-control-regex
  text.replace(/[\0-\x08\x0b\x0c\x0e-\x1f]/g, (sign) => String.fromCharCode(0x2400 + sign.charCodeAt(0)));

/** Put a text where it is announced when it changes, and only then. */
export function say(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/** One control for each name: copies of this one go before it, and it is the last. Each is labelled by its name. */
export function oneForEach(control, names, before = "") {
  const box = control.parentElement; // its label, then the control, and nothing else
  return names.map((name, index) => {
    const last = index === names.length - 1;
    const own = last ? box : box.cloneNode(true);
    const [label, copy] = own.children;
    label.replaceChildren(before, words(name));
    if (!last) {
      copy.id = label.htmlFor = `${control.id}-${index + 1}`;
      copy.value = "";
      box.before(own);
    }
    return copy;
  });
}

export const SPACE = "\u202f"; // narrow, between a number and its sign

/** A whole number with its thousands apart: 12,000. */
export const count = (number) => number.toLocaleString("en");

/** "1 text", "2 texts". */
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** A probability: 93.1 %; never 0 or 100 unless it is. */
export function percent(value) {
  if (value > 0 && value < 0.001) {
    return `<${SPACE}0.1${SPACE}%`;
  }
  if (value < 1 && value > 0.999) {
    return `>${SPACE}99.9${SPACE}%`;
  }
  return `${(100 * value).toFixed(1)}${SPACE}%`;
}

/** "a", "a and b", "a, b and c"; of nodes or strings, as an array to append. */
export function listed(items) {
  return items.flatMap((item, index) => {
    if (index === 0) {
      return [item];
    }
    return [index === items.length - 1 ? " and " : ", ", item];
  });
}

/** A float32 in its shortest digits, as `flash predict` writes it: 0.98, not 0.9800000190734863. */
export function shortest(value) {
  for (let digits = 1; digits < 10; digits += 1) {
    const near = Number(value.toPrecision(digits));
    if (Math.fround(near) === value) {
      return String(near);
    }
  }
  return String(value);
}
