// Where messages are written and edited.

import { el } from "./dom.js";
import { session } from "./session.js";

/** @import { Message } from "./types.js" */

const BODY_MAX_BYTES = 64 * 1024;
const HEIGHT_MAX_PX = 240;

/** The `keyCode` of keys that belong to an input method. */
const COMPOSING = 229;

/** On a touch screen there is no Shift, so Enter is a line break there. */
const TOUCH = matchMedia("(pointer: coarse)");

export class Composer {
  #listeners;
  /** The message that is edited instead of writing a new one. @type {Message | null} */
  #edited = null;
  /** What the field made of the edited message's text: it turns each CRLF into LF. */
  #unchanged = "";
  /** What was being written when an edit began. */
  #draft = "";
  #sender = el("input", {
    id: "sender",
    className: "sender-name",
    maxLength: 255,
    placeholder: "Your name",
    autocomplete: "off",
    "aria-label": "Sender",
    dir: "auto",
  });
  #body = el("textarea", {
    id: "body",
    rows: 1,
    placeholder: "Write a message",
    "aria-label": "Message",
    "aria-describedby": "body-problem",
    dir: "auto",
  });
  #submit = el("button", { type: "submit", className: "primary" }, "Send");
  #editing = el("span", {});
  #mode = el(
    "p",
    { className: "mode", hidden: true },
    this.#editing,
    el("button", { type: "button", className: "small quiet", onclick: () => this.#leaveEdit() }, "Cancel"),
  );
  #problem = el("p", { id: "body-problem", className: "trouble", role: "alert" });

  /**
   * @param {object} listeners
   * @param {(sender: string | null, body: string) => void} listeners.onSend
   * @param {(number: number, body: string) => void} listeners.onEdit
   * @param {() => void} listeners.onLeave the reader wants to go back to the messages
   */
  constructor(listeners) {
    this.#listeners = listeners;
    this.#sender.value = session.sender;
    this.#sender.addEventListener("input", () => (session.sender = this.#sender.value));
    this.#body.addEventListener("input", () => this.#adapt());
    this.#body.addEventListener("keydown", (event) => this.#onKey(event));
    this.element = el(
      "form",
      { className: "composer", onsubmit: (/** @type {Event} */ event) => this.#onSubmit(event) },
      this.#mode,
      el("div", { className: "line" }, this.#sender, this.#body, this.#submit),
      this.#problem,
    );
  }

  /** What is being written, to be kept while another chat is shown. */
  get draft() {
    return this.#edited ? this.#draft : this.#body.value;
  }
  set draft(text) {
    this.#body.value = text;
    this.#adapt();
  }

  /** Let the reader write, unless that would bring up a keyboard over half of the screen. */
  focus() {
    if (!TOUCH.matches) this.#body.focus();
  }

  /** @param {Message} message */
  edit(message) {
    if (!this.#edited) this.#draft = this.#body.value;
    this.#edited = message;
    this.#editing.textContent = `Editing message ${message.number}`;
    this.#mode.hidden = false;
    this.#sender.hidden = true;
    this.#submit.textContent = "Save";
    this.#body.value = message.body ?? "";
    this.#unchanged = this.#body.value;
    this.#adapt();
    this.#body.focus();
  }

  #leaveEdit() {
    this.#edited = null;
    this.#mode.hidden = true;
    this.#sender.hidden = false;
    this.#submit.textContent = "Send";
    this.draft = this.#draft;
    this.#body.focus();
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    // Enter that chooses a word of an input method is no Enter.
    // Safari has ended the composition by then, and tells only by an old code.
    if (event.isComposing || event.keyCode === COMPOSING) return;
    if (event.key === "Enter" && !event.shiftKey && !TOUCH.matches) this.#onSubmit(event);
    else if (event.key === "Escape") {
      if (this.#edited) this.#leaveEdit();
      else this.#listeners.onLeave();
    }
  }

  /** @param {Event} event */
  #onSubmit(event) {
    event.preventDefault();
    const body = this.#body.value;
    const bytes = new TextEncoder().encode(body).length;
    if (bytes > BODY_MAX_BYTES) {
      this.#problem.textContent = `This is ${bytes - BODY_MAX_BYTES} bytes longer than a message may be.`;
      return;
    }
    if (!body.trim()) return;
    if (this.#edited) {
      if (body !== this.#unchanged) this.#listeners.onEdit(this.#edited.number, body);
      this.#leaveEdit();
    } else {
      this.draft = "";
      this.#listeners.onSend(this.#sender.value.trim() ? this.#sender.value : null, body);
    }
  }

  #adapt() {
    this.#problem.textContent = "";
    this.#body.style.height = "auto";
    if (!this.element.isConnected) return;
    this.#body.style.height = `${Math.min(this.#body.scrollHeight + 2, HEIGHT_MAX_PX)}px`;
  }
}
