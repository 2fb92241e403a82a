// Search as you type, in one chat or in all chats of an application.

import { addressOf } from "./address.js";
import { api } from "./api.js";
import { el, marked, sync } from "./dom.js";
import { fold, matches } from "./folding.js";
import { senderName } from "./rows.js";
import { failure, loading } from "./states.js";
import { clockOf, fullTimeOf, shortDayOf } from "./times.js";

/** @import { Message, Range } from "./types.js" */
/** @import { Query } from "./api.js" */

const PAUSE_MS = 120;
const PAGE = 30;
const QUERY_MAX_CHARACTERS = 256;
/** How much of a message is shown around its first match. */
const BEFORE_CHARACTERS = 60;
const SHOWN_CHARACTERS = 280;

const OVER_THE_CHAT = matchMedia("(width < 1060px)");

export class Search {
  #token = "";
  /** @type {number | undefined} */
  #chat;
  #onClose;
  #asked = false;
  #asking = new AbortController();
  #timer = 0;
  /** @type {Message[]} */
  #found = [];
  /** @type {Query | null} */
  #next = null;
  #input = el("input", {
    id: "query",
    type: "search",
    placeholder: "Search",
    autocomplete: "off",
    "aria-label": "Search messages",
    dir: "auto",
    spellcheck: false,
  });
  #here = el("input", { type: "radio", name: "scope", id: "scope-chat", checked: true });
  #everywhere = el("input", { type: "radio", name: "scope", id: "scope-application" });
  #told = el("p", { className: "aside", role: "status" });
  #list = el("ol", { className: "found", "aria-label": "Messages found" });
  #more = el("div", { className: "more" });
  #sight;

  /**
   * @param {HTMLElement} panel
   * @param {() => void} onClose
   */
  constructor(panel, onClose) {
    this.panel = panel;
    this.#onClose = onClose;
    const close = el("button", {
      type: "button",
      className: "icon close",
      "aria-label": "Close the search",
      title: "Close",
      onclick: () => this.close(),
    });
    const scopes = el(
      "fieldset",
      { className: "scopes" },
      el("legend", { className: "unseen" }, "Where"),
      el("span", {}, this.#here, el("label", { for: "scope-chat" }, "This chat")),
      el("span", {}, this.#everywhere, el("label", { for: "scope-application" }, "All chats")),
    );
    panel.append(
      el("div", { className: "search-head" }, el("div", { className: "line" }, this.#input, close), scopes, this.#told),
      el(
        "div",
        { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Search results" },
        this.#list,
        this.#more,
      ),
    );
    this.#input.addEventListener("input", () => this.#askSoon());
    // Where the panel covers the chat, it makes room for what was chosen.
    this.#list.addEventListener("click", () => OVER_THE_CHAT.matches && (panel.hidden = true));
    for (const scope of [this.#here, this.#everywhere]) scope.addEventListener("change", () => void this.#ask());
    panel.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
    this.#sight = new IntersectionObserver(([entry]) => entry.isIntersecting && void this.#readMore());
    this.#sight.observe(this.#more);
  }

  get isOpen() {
    return !this.panel.hidden;
  }

  /** What is marked in the messages that were found, until the search is closed. */
  get query() {
    return this.#asked ? this.#input.value : "";
  }

  /**
   * Search here from now on.
   * @param {string} token
   * @param {number} [chat]
   */
  moveTo(token, chat) {
    const elsewhere = token !== this.#token || (chat !== this.#chat && !this.#everywhere.checked);
    this.#token = token;
    this.#chat = chat;
    this.#here.disabled = chat === undefined;
    if (chat === undefined) this.#everywhere.checked = true;
    else if (!this.isOpen) this.#here.checked = true;
    if (elsewhere && this.isOpen) void this.#ask();
  }

  /** @param {"chat" | "application"} where */
  open(where) {
    this.#asked = true;
    const scope = where === "chat" && !this.#here.disabled ? this.#here : this.#everywhere;
    const asksAnew = !this.isOpen || !scope.checked;
    scope.checked = true;
    this.panel.hidden = false;
    if (asksAnew) void this.#ask();
    this.#input.select();
    this.#input.focus();
  }

  close() {
    if (!this.isOpen) return;
    this.#asked = false;
    this.panel.hidden = true;
    clearTimeout(this.#timer);
    this.#asking.abort();
    this.panel.removeAttribute("aria-busy");
    this.#onClose();
  }

  /** Close it, and keep neither what was typed nor what was found. */
  forget() {
    this.close();
    this.#input.value = "";
    void this.#ask();
  }

  /**
   * Keep what was found in step with what happens in the chat that is shown.
   * @param {number} chat
   * @param {Message[]} messages in their new state
   */
  update(chat, messages) {
    if (!this.isOpen || !this.#found.length) return;
    const changed = new Map(messages.map((message) => [message.number, message]));
    const needle = fold(this.#input.value);
    this.#found = this.#found.flatMap((known) => {
      const now = (known.chat_number ?? this.#chat) === chat ? changed.get(known.number) : undefined;
      if (!now) return [known];
      return now.body !== null && fold(now.body).includes(needle) ? [{ ...now, chat_number: known.chat_number }] : [];
    });
    this.#draw();
  }

  #askSoon() {
    clearTimeout(this.#timer);
    // What was asked before is stale now, though the next question waits for a pause in typing.
    this.#asking.abort();
    this.#timer = setTimeout(() => void this.#ask(), PAUSE_MS);
  }

  async #ask() {
    clearTimeout(this.#timer);
    this.#asking.abort();
    const asking = (this.#asking = new AbortController());
    const q = this.#input.value;
    this.#next = null;
    if (q === "" || [...q].length > QUERY_MAX_CHARACTERS) {
      // What was asked before is cancelled and will not take it away.
      this.panel.removeAttribute("aria-busy");
      this.#found = [];
      this.#told.textContent = q ? `A search may have ${QUERY_MAX_CHARACTERS} characters.` : "";
      this.#draw();
      this.#more.replaceChildren();
      return;
    }
    this.panel.setAttribute("aria-busy", "true");
    if (!this.#found.length) this.#more.replaceChildren(loading("matches"));
    await this.#read(asking, { q, limit: PAGE }, (items) => (this.#found = items));
    if (!asking.signal.aborted) this.panel.removeAttribute("aria-busy");
  }

  async #readMore() {
    const next = this.#next;
    this.#next = null;
    if (!next) return;
    await this.#read(this.#asking, next, (items) => (this.#found = [...this.#found, ...items]));
    this.#sight.unobserve(this.#more);
    this.#sight.observe(this.#more);
  }

  /**
   * @param {AbortController} asking
   * @param {Query} query
   * @param {(items: Message[]) => void} take
   */
  async #read(asking, query, take) {
    const chat = this.#everywhere.checked ? undefined : this.#chat;
    try {
      const { items, next } = await api.search(this.#token, chat, query, asking.signal);
      if (asking.signal.aborted) return;
      take(items);
      this.#next = next;
      this.#more.replaceChildren();
      const count = this.#found.length;
      this.#told.textContent = count
        ? `${next ? "The latest " : ""}${count} ${count === 1 ? "message" : "messages"}`
        : "Nothing found.";
      this.#draw();
    } catch (error) {
      if (asking.signal.aborted) return;
      this.#told.textContent = "";
      this.#found = [];
      this.#draw();
      this.#more.replaceChildren(failure("Not searched", error, () => void this.#ask()));
    }
  }

  #draw() {
    const query = this.#input.value;
    sync(
      this.#list,
      this.#found,
      (message) => `${message.chat_number ?? this.#chat}/${message.number}`,
      () => el("li", {}, el("a", {})),
      (element, message) => {
        const link = /** @type {HTMLAnchorElement} */ (element.firstElementChild);
        const [text, ranges] = excerpt(message.body ?? "", query);
        link.href = addressOf(this.#token, message.chat_number ?? this.#chat, message.number);
        link.replaceChildren(
          el(
            "span",
            { className: "head" },
            senderName(message.sender),
            el(
              "span",
              { className: "where" },
              `${message.chat_number ? `chat ${message.chat_number} ` : ""}#${message.number}`,
            ),
            el(
              "time",
              { dateTime: message.created_at, title: fullTimeOf(message.created_at) },
              `${shortDayOf(message.created_at)}, ${clockOf(message.created_at)}`,
            ),
          ),
          el("span", { className: "excerpt", dir: "auto" }, ...marked(text, ranges)),
        );
      },
    );
  }
}

/**
 * @param {string} body
 * @param {string} query
 * @returns {[string, Range[]]} the part around the first match, with what matches in it
 */
export function excerpt(body, query) {
  const [first] = matches(body, query, 1);
  const start = first && first[0] > BEFORE_CHARACTERS ? boundary(body, first[0] - BEFORE_CHARACTERS) : 0;
  const end = boundary(body, Math.max(start + SHOWN_CHARACTERS, first?.[1] ?? 0));
  const text = `${start > 0 ? "…" : ""}${body.slice(start, end)}${end < body.length ? "…" : ""}`;
  return [text, matches(text, query)];
}

/**
 * @param {string} text
 * @param {number} at
 * @returns {number} `at`, or one less where it would part the two halves of a character
 */
function boundary(text, at) {
  return /[\uDC00-\uDFFF]/.test(text.charAt(at)) ? at - 1 : at;
}
