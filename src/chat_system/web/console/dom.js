// Making elements. Whatever comes from outside becomes text: nothing in this console is ever read as HTML, and the
// page's policy lets the browser refuse it (require-trusted-types-for).

/** @import { Range } from "./types.js" */

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, unknown>} [properties] "on…" is a listener; what has a dash, "role" and "for" are attributes
 * @param {...Child} children text stays text
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, String(value));
    else /** @type {any} */ (element)[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * @param {string} id
 * @returns {HTMLElement} the page's element of this id
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/**
 * A person's or a machine's text among ours: its direction is its own.
 * @param {string} text
 * @param {string} [className]
 */
export const foreign = (text, className = "") => el("bdi", { className }, text);

/**
 * Make the children of `parent` those of `items`, in order. Elements of keys that stay are kept and not even moved, so
 * they keep the focus.
 *
 * @template Item
 * @param {HTMLElement} parent
 * @param {readonly Item[]} items
 * @param {(item: Item) => string | number} keyOf
 * @param {(item: Item) => HTMLElement} create
 * @param {(element: HTMLElement, item: Item, index: number) => void} [update]
 */
export function sync(parent, items, keyOf, create, update = () => {}) {
  const wanted = new Set(items.map((item) => String(keyOf(item))));
  /** @type {Map<string | undefined, HTMLElement>} */
  const kept = new Map();
  for (const child of /** @type {HTMLElement[]} */ ([...parent.children])) {
    if (child.dataset.key !== undefined && wanted.has(child.dataset.key)) kept.set(child.dataset.key, child);
    else child.remove();
  }
  let place = parent.firstElementChild;
  items.forEach((item, index) => {
    const key = String(keyOf(item));
    let element = kept.get(key);
    if (!element) {
      element = create(item);
      element.dataset.key = key;
    }
    update(element, item, index);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  });
}

/**
 * @param {string} text
 * @param {Range[]} ranges
 * @returns {Node[]} the text with its ranges marked
 */
export function marked(text, ranges) {
  /** @type {Node[]} */
  const nodes = [];
  let at = 0;
  for (const [start, end] of ranges) {
    if (start > at) nodes.push(document.createTextNode(text.slice(at, start)));
    nodes.push(el("mark", {}, text.slice(start, end)));
    at = end;
  }
  if (at < text.length) nodes.push(document.createTextNode(text.slice(at)));
  return nodes;
}

/**
 * A button that shows an icon and says its name to those who don't see it.
 * @param {string} icon
 * @param {string} label
 * @param {(event: MouseEvent) => void} onclick
 */
export function iconButton(icon, label, onclick) {
  return el("button", { type: "button", className: `icon ${icon}`, "aria-label": label, title: label, onclick });
}

let announced = 0;

/**
 * Let a screen reader say it when it has nothing else to say. Of several at once the last is said.
 * @param {string} text
 */
export function announce(text) {
  cancelAnimationFrame(announced);
  announced = requestAnimationFrame(() => {
    byId("announcements").textContent = text;
  });
}
