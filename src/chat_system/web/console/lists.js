// The lists at the side: the applications, and the chats of one. Pages are added as the reader comes to the end of
// what is there, and what is shown is asked for again now and then.

import { addressOf } from "./address.js";
import { Problem, api } from "./api.js";
import { el, foreign, sync } from "./dom.js";
import { failure, loading } from "./states.js";
import { countOf } from "./times.js";

/** @import { Application, Chat } from "./types.js" */
/** @import { Page, Query } from "./api.js" */

const PAGE = 100;
const REFRESH_MS = 5_000;
/** A list of more pages than this is not asked for again. */
const REFRESHED_PAGES_MAX = 3;

/**
 * @template Item
 * @typedef {object} Kind what a list is of
 * @property {string} label
 * @property {Query} start the query of the first page
 * @property {(query: Query, signal: AbortSignal) => Promise<Page<Item[]>>} read
 * @property {(item: Item) => string | number} keyOf
 * @property {(item: Item) => Child[]} look
 * @property {(item: Item) => string} address
 */
/** @import { Child } from "./dom.js" */

/** @template Item */
export class List {
  /** @type {Item[]} */
  items = [];
  /** Called when the list could not be read. @type {(error: unknown) => void} */
  onFailed = () => {};
  #kind;
  #onLoaded;
  #pages = 0;
  /** @type {Query | null} */
  #next = null;
  #reading = false;
  /** Until then the server has asked to be left alone, in milliseconds of `performance.now()`. */
  #quietUntil = 0;
  #closing = new AbortController();
  #timer = 0;
  #current = "";
  #list = el("ul", { className: "list" });
  #more = el("div", { className: "more" });
  #sight;

  /**
   * @param {Kind<Item>} kind
   * @param {(items: Item[]) => void} onLoaded called whenever the list was read
   */
  constructor(kind, onLoaded) {
    this.#kind = kind;
    this.#onLoaded = onLoaded;
    this.#list.setAttribute("aria-label", kind.label);
    this.element = el("div", { className: "scroll" }, this.#list, this.#more);
    this.#sight = new IntersectionObserver(([entry]) => entry.isIntersecting && this.#mayAsk && void this.#readMore());
    this.#sight.observe(this.#more);
    this.#more.append(loading(kind.label.toLowerCase()));
    void this.refresh();
  }

  close() {
    this.#closing.abort();
    this.#sight.disconnect();
    clearTimeout(this.#timer);
  }

  /** @param {string} key the item that is shown beside the list */
  choose(key) {
    this.#current = key;
    this.#draw();
  }

  /** Ask for what is shown again. */
  async refresh() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.refresh(), REFRESH_MS);
    if (document.hidden || this.#reading || !this.#mayAsk || this.#pages > REFRESHED_PAGES_MAX) return;
    await this.#readAll();
  }

  /** Whether the list may be read without the reader having asked for it. */
  get #mayAsk() {
    return performance.now() >= this.#quietUntil;
  }

  async #readAll() {
    await this.#read(this.#readAll, async () => {
      /** @type {Item[]} */
      const items = [];
      /** @type {Query | null} */
      let next = this.#kind.start;
      let pages = 0;
      for (; next && pages < Math.max(1, this.#pages); pages += 1) {
        const page = await this.#kind.read({ limit: PAGE, ...next }, this.#closing.signal);
        items.push(...page.items);
        next = page.next;
      }
      this.items = items;
      this.#next = next;
      this.#pages = pages;
    });
  }

  async #readMore() {
    const next = this.#next;
    if (!next || this.#reading) return;
    await this.#read(this.#readMore, async () => {
      const page = await this.#kind.read({ limit: PAGE, ...next }, this.#closing.signal);
      this.items = [...this.items, ...page.items];
      this.#next = page.next;
      this.#pages += 1;
    });
  }

  /**
   * @param {() => Promise<void>} again what "Try again" does
   * @param {() => Promise<void>} work
   */
  async #read(again, work) {
    this.#reading = true;
    try {
      await work();
      // Of a list that was left nothing is shown any more: something else may stand in its place.
      if (this.#closing.signal.aborted) return;
      this.#more.replaceChildren();
      this.#draw();
      this.#onLoaded(this.items);
      // If its end is still in sight, it is told again. Not after a failure: asking at once and for ever would keep a
      // rate limit used up.
      this.#sight.unobserve(this.#more);
      this.#sight.observe(this.#more);
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      if (error instanceof Problem) this.#quietUntil = performance.now() + error.retryAfterS * 1000;
      this.#more.replaceChildren(failure("Not loaded", error, () => void again.call(this)));
      this.onFailed(error);
    } finally {
      this.#reading = false;
    }
  }

  #draw() {
    sync(
      this.#list,
      this.items,
      this.#kind.keyOf,
      (item) => el("li", {}, el("a", { href: this.#kind.address(item) })),
      (element, item) => {
        const link = /** @type {HTMLAnchorElement} */ (element.firstElementChild);
        const look = this.#kind.look(item);
        const text = look.map((part) => (part instanceof Node ? part.textContent : part)).join("\n");
        if (element.dataset.look !== text) link.replaceChildren(...look.filter((part) => part instanceof Node));
        element.dataset.look = text;
        if (String(this.#kind.keyOf(item)) === this.#current) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
      },
    );
  }
}

/** @type {Kind<Application>} */
export const applications = {
  label: "Applications",
  start: {},
  read: (query) => api.applications(query),
  keyOf: (application) => application.token,
  look: (application) => [foreign(application.name, "name"), count(application.chats_count, "chat")],
  address: (application) => addressOf(application.token),
};

/**
 * Newest first: those are the ones that someone looks for.
 * @param {string} token
 * @returns {Kind<Chat>}
 */
export const chatsOf = (token) => ({
  label: "Chats",
  start: { before: Number.MAX_SAFE_INTEGER },
  read: async (query, signal) => {
    const { items } = await api.chats(token, query, signal);
    const lowest = items[0]?.number ?? 1;
    return { items: items.reverse(), next: lowest > 1 ? { before: lowest } : null };
  },
  keyOf: (chat) => chat.number,
  look: (chat) => [titleOf(chat), count(chat.messages_count, "message")],
  address: (chat) => addressOf(token, chat.number),
});

/** @param {Chat} chat */
export function titleOf(chat) {
  return chat.title === null
    ? el("span", { className: "name untitled" }, `Chat ${chat.number}`)
    : foreign(chat.title, "name");
}

/**
 * @param {number} number
 * @param {string} what
 */
function count(number, what) {
  return el(
    "span",
    { className: "count" },
    countOf(number),
    el("span", { className: "unseen" }, ` ${what}${number === 1 ? "" : "s"}`),
  );
}
