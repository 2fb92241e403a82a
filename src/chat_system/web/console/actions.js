// What can be done to one message, by pointer and by key. There is one set of buttons, which goes to the row that is
// pointed at or has the focus.

import { el } from "./dom.js";

/** @import { Message } from "./types.js" */

/**
 * @typedef {object} Listeners
 * @property {(number: number) => Message | undefined} at the message as it is now
 * @property {(message: Message) => void} onEdit
 * @property {(message: Message) => void} onDelete
 * @property {(number: number) => void} onStep go to this row, if it is there
 * @property {(end: "first" | "last") => void} onJump
 */

export class Actions {
  #rows;
  #listeners;
  /** The number of the row that has the buttons. */
  #number = 0;
  #buttons = el(
    "div",
    { className: "actions", role: "group", "aria-label": "This message" },
    el("button", { type: "button", className: "small", onclick: () => this.#act("edit") }, "Edit"),
    el("button", { type: "button", className: "small", onclick: () => this.#act("delete") }, "Delete"),
  );

  /**
   * @param {HTMLElement} rows
   * @param {Listeners} listeners
   */
  constructor(rows, listeners) {
    this.#rows = rows;
    this.#listeners = listeners;
    rows.addEventListener("pointerover", (event) => this.#offer(event.target, false));
    rows.addEventListener("focusin", (event) => this.#offer(event.target, true));
    rows.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /**
   * @param {EventTarget | null} target
   * @param {boolean} focused
   */
  #offer(target, focused) {
    const row = target instanceof Element ? /** @type {HTMLElement | null} */ (target.closest(".message")) : null;
    // Never from under the focus.
    if (!row || row.contains(this.#buttons) || (!focused && this.#buttons.contains(document.activeElement))) return;
    this.#number = Number(row.dataset.key);
    if (this.#message()) row.append(this.#buttons);
    else this.#buttons.remove();
    if (!focused) return;
    for (const other of this.#rows.querySelectorAll(':scope > [tabindex="0"]')) other.setAttribute("tabindex", "-1");
    row.tabIndex = 0;
  }

  /** The message, as long as something can be done to it. */
  #message() {
    const message = this.#listeners.at(this.#number);
    return message?.deleted_at === null ? message : undefined;
  }

  /** @param {"edit" | "delete"} what */
  #act(what) {
    const message = this.#message();
    if (!message) return;
    if (what === "edit") this.#listeners.onEdit(message);
    else this.#listeners.onDelete(message);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const row = /** @type {HTMLElement} */ (event.target);
    if (!row.matches(".message") || event.altKey || event.ctrlKey || event.metaKey) return;
    const number = Number(row.dataset.key);
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowUp: () => this.#listeners.onStep(number - 1),
      ArrowDown: () => this.#listeners.onStep(number + 1),
      Home: () => this.#listeners.onJump("first"),
      End: () => this.#listeners.onJump("last"),
      Enter: () => this.#act("edit"),
      Delete: () => this.#act("delete"),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }
}
