// What the reader did and the server has not confirmed: messages on their way, edits and deletions. They are shown at
// once; what fails stays with its reason until it is tried again or discarded.

import { Problem, newKey } from "./api.js";

/** @import { Message } from "./types.js" */

/**
 * @typedef {object} Sending
 * @property {string} key the same for each attempt, so that no attempt adds a second message
 * @property {string | null} sender
 * @property {string} body
 * @property {string} at when it was written
 * @property {"waiting" | "sent" | "failed"} state
 * @property {number} [number] once acknowledged
 * @property {string} [reason]
 *
 * @typedef {object} Change
 * @property {"edit" | "delete"} kind
 * @property {string} [body] of an edit
 * @property {"saving" | "failed"} state
 * @property {string} [reason]
 *
 * @typedef {object} Server what the changes are asked of
 * @property {(message: {sender: string | null, body: string}, key: string) => Promise<Message>} post
 * @property {(number: number, body: string) => Promise<Message>} edit
 * @property {(number: number) => Promise<Message>} remove answers with what stays
 */

/** @param {unknown} error */
const reasonOf = (error) => (error instanceof Problem ? error.message : String(error));

/** Messages on their way, in the order in which they were written. */
export class Outbox {
  /** @type {readonly Sending[]} */
  entries = [];
  /** Called when something is to be shown in another way. */
  onChange = () => {};
  /** Called with what the server made of an entry. @type {(message: Message) => void} */
  onAcknowledged = () => {};
  #server;
  /** Ends when everything before was answered: one after the other, so that numbers keep the order of writing. */
  #turn = Promise.resolve();

  /** @param {Server} server */
  constructor(server) {
    this.#server = server;
  }

  /** Whether something is not acknowledged. */
  get isWaiting() {
    return this.entries.some((entry) => entry.state !== "sent");
  }

  /**
   * @param {string | null} sender
   * @param {string} body
   */
  send(sender, body) {
    const at = new Date().toISOString();
    /** @type {Sending} */
    const entry = { key: newKey(), sender, body, at, state: "waiting" };
    this.entries = [...this.entries, entry];
    this.#queue(entry.key);
  }

  /** @param {string} key */
  retry(key) {
    this.#set(key, { state: "waiting", reason: undefined });
    this.#queue(key);
  }

  /** @param {string} key */
  discard(key) {
    this.entries = this.entries.filter((entry) => entry.key !== key);
    this.onChange();
  }

  /** Let go of what is now among the messages. @param {number} last the highest number shown there */
  settle(last) {
    this.entries = this.entries.filter((entry) => entry.number === undefined || entry.number > last);
  }

  /** @param {string} key */
  #queue(key) {
    this.onChange();
    this.#turn = this.#turn.then(() => this.#post(key));
  }

  /** @param {string} key */
  async #post(key) {
    const entry = this.entries.find((one) => one.key === key);
    if (!entry) return;
    try {
      const message = await this.#server.post({ sender: entry.sender, body: entry.body }, key);
      this.#set(key, { state: "sent", number: message.number });
      this.onAcknowledged(message);
    } catch (error) {
      this.#set(key, { state: "failed", reason: reasonOf(error) });
    }
    this.onChange();
  }

  /**
   * @param {string} key
   * @param {Partial<Sending>} news
   */
  #set(key, news) {
    this.entries = this.entries.map((entry) => (entry.key === key ? { ...entry, ...news } : entry));
  }
}

/** Edits and deletions under way, the latest of each message. */
export class Changes {
  /** @type {Map<number, Change>} */
  #byNumber = new Map();
  /** Messages of which a change is asked for. @type {Set<number>} */
  #underWay = new Set();
  /** Called when something is to be shown in another way. */
  onChange = () => {};
  /** Called with the message as the server now has it. @type {(message: Message) => void} */
  onConfirmed = () => {};
  #server;

  /** @param {Server} server */
  constructor(server) {
    this.#server = server;
  }

  /** Whether something is not confirmed. */
  get isWaiting() {
    return this.#byNumber.size > 0;
  }

  /**
   * @param {number} number
   * @returns {Change | undefined}
   */
  of(number) {
    return this.#byNumber.get(number);
  }

  /**
   * @param {number} number
   * @param {string} body
   */
  edit(number, body) {
    void this.#carryOut(number, { kind: "edit", body, state: "saving" });
  }

  /** @param {number} number */
  remove(number) {
    void this.#carryOut(number, { kind: "delete", state: "saving" });
  }

  /** @param {number} number */
  retry(number) {
    const change = this.#byNumber.get(number);
    if (change) void this.#carryOut(number, { ...change, state: "saving", reason: undefined });
  }

  /** @param {number} number */
  discard(number) {
    this.#byNumber.delete(number);
    this.onChange();
  }

  /**
   * @param {number} number
   * @param {Change} change
   */
  async #carryOut(number, change) {
    this.#byNumber.set(number, change);
    this.onChange();
    // One at a time: of two requests under way the server may carry out the older one last.
    if (this.#underWay.has(number)) return;
    this.#underWay.add(number);
    try {
      for (let next = this.#waiting(number); next; next = this.#waiting(number)) await this.#ask(number, next);
    } finally {
      this.#underWay.delete(number);
    }
  }

  /**
   * @param {number} number
   * @returns {Change | undefined} what is to be asked for: what was decided in between is left out
   */
  #waiting(number) {
    const change = this.#byNumber.get(number);
    return change?.state === "saving" ? change : undefined;
  }

  /**
   * @param {number} number
   * @param {Change} change
   */
  async #ask(number, change) {
    try {
      const message =
        change.kind === "edit" ? await this.#server.edit(number, change.body ?? "") : await this.#server.remove(number);
      if (this.#byNumber.get(number) === change) this.#byNumber.delete(number);
      this.onConfirmed(message);
    } catch (error) {
      // What was decided meanwhile counts, not this.
      if (this.#byNumber.get(number) === change)
        this.#byNumber.set(number, { ...change, state: "failed", reason: reasonOf(error) });
    }
    this.onChange();
  }
}
