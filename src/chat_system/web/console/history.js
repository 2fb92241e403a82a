// The part of a chat that is in memory: some messages in a row, wherever the reader is. A chat of a hundred thousand
// costs no more than one of four hundred.
//
// Numbers have no gaps, so the row is an array and a message is found by its number. A page is taken only if it adjoins
// the row when it arrives: the row may have been trimmed, by the page of the other way or by new messages. Of two
// states of a message the one with the higher revision stays, whichever way it came: page, live change or the answer to
// an edit.

/** @import { Message } from "./types.js" */
/** @import { Query } from "./api.js" */

export const PAGE = 100;
export const KEPT_MAX = 400;

export class History {
  /** @type {Message[]} */
  messages = [];
  /** The highest number that is known to exist. */
  end = 0;
  /** Whether a first page was read. */
  isOpen = false;
  #read;
  #loading = new AbortController();
  /** Which way a page is being read. @type {Set<"back" | "on">} */
  #extending = new Set();
  /** What changed while pages were read: a page may have been read before the change. @type {Map<number, Message>} */
  #meanwhile = new Map();
  /** How many openings and extensions are under way. */
  #under = 0;

  /** @param {(query: Query, signal: AbortSignal) => Promise<Message[]>} read a page of the chat */
  constructor(read) {
    this.#read = read;
  }

  /** The lowest number in memory; 0 when there is none. */
  get first() {
    return this.messages[0]?.number ?? 0;
  }

  /** The highest number in memory; 0 when there is none. */
  get last() {
    return this.messages[this.messages.length - 1]?.number ?? 0;
  }

  /** Whether the latest message is in memory, or there is none. */
  get reachesEnd() {
    return this.last === this.end;
  }

  /**
   * @param {number} number
   * @returns {Message | undefined}
   */
  at(number) {
    const message = this.messages[number - this.first];
    // Were there ever a gap, an edit or a deletion must not hit another message.
    return message?.number === number ? message : undefined;
  }

  /** Go to the latest messages. */
  async openEnd() {
    const signal = this.#restart();
    await this.#watching(async () => {
      const items = await this.#page({ order: "desc", limit: PAGE }, signal);
      this.#replace(items.reverse());
    });
  }

  /** @param {number} number go to this message, or to the latest if the chat does not reach that far */
  async openAround(number) {
    const signal = this.#restart();
    const before = Math.floor(PAGE / 2);
    await this.#watching(async () => {
      const [items, [latest]] = await Promise.all([
        this.#page({ after: Math.max(0, number - before - 1), limit: PAGE }, signal),
        this.end ? [] : this.#page({ order: "desc", limit: 1 }, signal),
      ]);
      this.end = Math.max(this.end, latest?.number ?? 0);
      if (items.length === 0 || items[items.length - 1].number < Math.min(number, this.end)) await this.openEnd();
      else this.#replace(items);
    });
  }

  /** Load the page before what is in memory. @returns {Promise<boolean>} whether there was one */
  async extendBack() {
    return this.#extend("back", this.first > 1 && { before: this.first, limit: PAGE }, (items) => {
      // The row has lost its start while this was read: it is read again when it is wanted again.
      if (!items.length || items[items.length - 1].number < this.first - 1) return;
      this.messages = [...items.filter((item) => item.number < this.first), ...this.messages].slice(0, KEPT_MAX);
    });
  }

  /** Load the page after what is in memory. @returns {Promise<boolean>} whether there was one */
  async extendOn() {
    return this.#extend("on", !this.reachesEnd && { after: this.last, limit: PAGE }, (items) => {
      if (!items.length || items[0].number > this.last + 1) return;
      this.messages = [...this.messages, ...items.filter((item) => item.number > this.last)].slice(-KEPT_MAX);
    });
  }

  /**
   * Take a message in its new state.
   * @param {Message} message
   * @param {boolean} following whether the reader is at the end: then old messages make room for new ones
   */
  put(message, following) {
    if (this.#under) this.#meanwhile.set(message.number, newer(this.#meanwhile.get(message.number), message));
    this.end = Math.max(this.end, message.number);
    const known = this.at(message.number);
    if (known) this.messages[message.number - this.first] = newer(known, message);
    else if (message.number === this.last + 1 && (following || this.messages.length < KEPT_MAX)) {
      this.messages.push(message);
      if (this.messages.length > KEPT_MAX) this.messages.shift();
    }
  }

  /** Stop reading: no one looks any more. */
  close() {
    this.#loading.abort();
  }

  #restart() {
    this.#loading.abort();
    this.#loading = new AbortController();
    this.#extending.clear();
    return this.#loading.signal;
  }

  /** @param {Message[]} items */
  #replace(items) {
    this.messages = items.map((item) => this.#newest(item));
    this.isOpen = true;
    this.end = Math.max(this.end, this.last);
  }

  /**
   * @param {"back" | "on"} way
   * @param {Query | false} query
   * @param {(items: Message[]) => void} take
   */
  async #extend(way, query, take) {
    if (!query || this.#extending.has(way)) return false;
    const { signal } = this.#loading;
    this.#extending.add(way);
    try {
      return await this.#watching(async () => {
        const items = await this.#page(query, signal);
        take(items.map((item) => this.#newest(item)));
        this.end = Math.max(this.end, this.last);
        return items.length > 0;
      });
    } finally {
      // After a restart the mark is no longer this page's.
      if (!signal.aborted) this.#extending.delete(way);
    }
  }

  /**
   * @param {Query} query
   * @param {AbortSignal} signal
   */
  async #page(query, signal) {
    const items = await this.#read(query, signal);
    signal.throwIfAborted();
    return items;
  }

  /**
   * Remember what changes from before the first page is asked for until the last one is taken.
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  async #watching(work) {
    this.#under += 1;
    try {
      return await work();
    } finally {
      this.#under -= 1;
      if (this.#under === 0) this.#meanwhile.clear();
    }
  }

  /** @param {Message} item of a page */
  #newest(item) {
    return newer(this.#meanwhile.get(item.number), item);
  }
}

/**
 * @param {Message | undefined} one
 * @param {Message} other
 */
function newer(one, other) {
  return one && one.revision > other.revision ? one : other;
}
