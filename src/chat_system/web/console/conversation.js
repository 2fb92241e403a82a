// One chat: its messages, live, and what the reader does to them.

import { Actions } from "./actions.js";
import { addressOf } from "./address.js";
import { Problem, api } from "./api.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { leaveDesk, openDesk } from "./desks.js";
import { askWhetherToDelete } from "./dialogs.js";
import { announce, el, iconButton, sync } from "./dom.js";
import { History } from "./history.js";
import { titleOf } from "./lists.js";
import { Live } from "./live.js";
import { emptyChat } from "./overview.js";
import { senderName, trouble } from "./rows.js";
import { failure, loading } from "./states.js";
import { Timeline } from "./timeline.js";
import { countOf } from "./times.js";

/** @import { Chat, Message } from "./types.js" */
/** @import { Sending } from "./changes.js" */
/** @import { Search } from "./search.js" */

const SAID_CHARACTERS = 140;

/** @param {unknown} error */
const isAbort = (error) => error instanceof DOMException && error.name === "AbortError";

export class Conversation {
  #token;
  #chat;
  #search;
  #onAgain;
  #desk;
  #history;
  #timeline;
  #live;
  #composer;
  /** Up to this number the reader has seen the end. */
  #seen = 0;
  #closed = new AbortController();
  /** What says that a page could not be read. @type {HTMLElement | undefined} */
  #trouble;
  /** Tries again what failed. */
  #again = () => {};

  #title = el("h2");
  #goto = el("input", {
    id: "go-to",
    inputMode: "numeric",
    autocomplete: "off",
    size: 7,
    "aria-label": "Go to message number",
  });
  #total = el("span", { className: "total" });
  #state = el("div", { className: "state-place" });
  #above = el("div", { className: "room" });
  #rows = el("div", { className: "rows", role: "feed", "aria-label": "Messages" });
  #below = el("div", { className: "room" });
  #sending = el("ol", { className: "sending", "aria-label": "Messages on their way" });
  #scroller = el(
    "div",
    { className: "scroller", tabIndex: 0, role: "region", "aria-label": "Messages of the chat" },
    this.#above,
    this.#rows,
    this.#below,
    this.#sending,
  );
  #news = el("button", {
    type: "button",
    className: "news",
    hidden: true,
    onclick: () => void this.#load(() => this.#timeline.toEnd()),
  });

  /**
   * @param {HTMLElement} place
   * @param {string} token
   * @param {number} chat
   * @param {Search} search
   * @param {() => void} onAgain make another conversation in this one's place
   */
  constructor(place, token, chat, search, onAgain) {
    this.#token = token;
    this.#chat = chat;
    this.#title.append(`Chat ${chat}`);
    this.#search = search;
    this.#onAgain = onAgain;
    this.#desk = openDesk(token, chat);
    this.#history = new History((query, signal) => api.messages(token, chat, query, signal));
    this.#timeline = new Timeline(
      { scroller: this.#scroller, above: this.#above, rows: this.#rows, below: this.#below },
      this.#history,
      this.#desk.changes,
      { token, chat },
      { onMoved: () => this.#onMoved(), onProblem: (error) => this.#tell(error) },
    );
    const connection = new Connection(() => this.#live.retry());
    this.#live = new Live(
      (after) => api.events(token, chat, after),
      (messages) => this.#onMessages(messages),
      (state) => {
        connection.show(state);
        if (state.phase === "gone") this.#end(state.problem);
        if (state.phase === "live") this.#forgetTrouble();
      },
    );
    this.#composer = new Composer({
      onSend: (sender, body) => this.#send(sender, body),
      onEdit: (number, body) => this.#desk.changes.edit(number, body),
      onLeave: () => this.#timeline.focus(this.#timeline.lowest),
    });
    this.#listen();
    place.replaceChildren(
      this.#header(connection.element),
      el("div", { className: "stage" }, this.#scroller, this.#state, this.#news),
      this.#composer.element,
    );
  }

  /** @param {number} [message] show this message, else the latest */
  async open(message) {
    this.#composer.draft = this.#desk.draft;
    if (!message) this.#composer.focus();
    this.#state.replaceChildren(loading("messages"));
    try {
      const chat = await api.chat(this.#token, this.#chat, this.#closed.signal);
      this.#name(chat);
      // A revision from before the first page: what changes between the two comes twice, not never.
      this.#live.start(chat.revision);
      await (message ? this.#timeline.to(message) : this.#timeline.toEnd());
      if (message) this.#mark(message);
      this.#state.replaceChildren();
      this.#draw();
    } catch (error) {
      if (this.#closed.signal.aborted) return;
      if (isAbort(error)) {
        // The reader has gone elsewhere in the chat before this was there.
        this.#state.replaceChildren();
        return;
      }
      this.#live.close();
      const missing = error instanceof Problem && error.status === 404;
      this.#state.replaceChildren(
        failure(missing ? "There is no such chat" : "Not loaded", error, missing ? undefined : this.#onAgain),
      );
    }
  }

  /** @param {number} number */
  async show(number) {
    await this.#load(async () => {
      await this.#timeline.to(number);
      this.#mark(number);
    });
  }

  /** Take away the marks of a search. */
  unmark() {
    this.#timeline.needle = "";
    this.#timeline.drawSoon();
  }

  close() {
    this.#closed.abort();
    this.#live.close();
    this.#history.close();
    this.#timeline.close();
    this.#desk.draft = this.#composer.draft;
    leaveDesk(this.#desk);
  }

  focusComposer() {
    this.#composer.focus();
  }

  /** @param {HTMLElement} connection */
  #header(connection) {
    const form = el(
      "form",
      {
        className: "go-to",
        onsubmit: (/** @type {Event} */ event) => {
          event.preventDefault();
          // An address takes no more digits than a chat has.
          const number = Math.min(Number(this.#goto.value), this.#history.end);
          this.#goto.value = "";
          if (!Number.isInteger(number) || number < 1) return;
          const address = addressOf(this.#token, this.#chat, number);
          // Nothing tells of an address that is chosen again.
          if (address === location.hash) void this.show(number);
          else location.hash = address;
        },
      },
      this.#goto,
      this.#total,
    );
    const back = el("a", {
      className: "icon back",
      href: addressOf(this.#token),
      "aria-label": "Back to the chats",
      title: "Back",
    });
    return el(
      "header",
      { className: "bar" },
      back,
      this.#title,
      form,
      connection,
      iconButton("find", "Search (press /)", () => this.#search.open("chat")),
    );
  }

  #listen() {
    const { outbox, changes } = this.#desk;
    outbox.onChange = changes.onChange = () => this.#draw();
    outbox.onAcknowledged = changes.onConfirmed = (message) => this.#onMessages([message]);
    new Actions(this.#rows, {
      at: (number) => this.#history.at(number),
      onEdit: (message) => this.#composer.edit(message),
      onDelete: ({ number }) => askWhetherToDelete(number, () => changes.remove(number)),
      onStep: (number) => void this.#timeline.focus(number),
      onJump: (end) => void this.show(end === "first" ? 1 : this.#history.end),
    });
  }

  /** @param {Chat} chat */
  #name(chat) {
    this.#title.replaceChildren(titleOf(chat));
    // What is between these two marks can't turn the direction of the rest.
    document.title = `\u2068${chat.title ?? `Chat ${chat.number}`}\u2069 – Chat System`;
  }

  /** @param {Message[]} messages in their new state, from the stream or from an answer */
  #onMessages(messages) {
    const { end } = this.#history;
    for (const message of messages) this.#history.put(message, this.#timeline.following);
    this.#search.update(this.#chat, messages);
    const latest = messages[messages.length - 1];
    if (latest.number > end && latest.body !== null && this.#history.isOpen)
      announce(`${latest.sender ?? "No sender"}: ${latest.body.slice(0, SAID_CHARACTERS)}`);
    this.#timeline.drawSoon();
  }

  /**
   * @param {string | null} sender
   * @param {string} body
   */
  #send(sender, body) {
    this.#desk.outbox.send(sender, body);
    void this.#load(() => this.#timeline.toEnd());
  }

  #draw() {
    this.#timeline.draw();
  }

  /** After each drawing and each scrolling. */
  #onMoved() {
    const { end, last } = this.#history;
    const { outbox } = this.#desk;
    if (this.#timeline.following) {
      this.#seen = end;
      outbox.settle(last);
    }
    this.#drawSending(outbox.entries);
    this.#goto.hidden = end === 0;
    this.#total.textContent = end ? `of ${countOf(end)}` : "";
    this.#goto.placeholder = String(this.#timeline.lowest || "");
    this.#news.hidden = this.#timeline.following || end === 0;
    const fresh = this.#seen ? end - this.#seen : 0;
    this.#news.textContent = fresh ? `${countOf(fresh)} new` : "Latest";
    const isEmpty = end === 0 && !outbox.entries.length;
    const shown = this.#state.firstElementChild;
    if (isEmpty && !shown) this.#state.replaceChildren(emptyChat(this.#token, this.#chat));
    else if (!isEmpty && shown && !shown.matches(".failure, .loading")) this.#state.replaceChildren();
  }

  /** @param {readonly Sending[]} entries */
  #drawSending(entries) {
    const { outbox } = this.#desk;
    sync(
      this.#sending,
      entries,
      (entry) => `${entry.key} ${entry.state}`,
      (entry) =>
        el(
          "li",
          { className: `message ${entry.state}` },
          el("span", { className: "number" }, entry.number ? String(entry.number) : ""),
          el(
            "div",
            { className: "head" },
            senderName(entry.sender),
            el("span", { className: "aside" }, entry.state === "waiting" ? "sending …" : ""),
          ),
          el("div", { className: "body", dir: "auto" }, entry.body),
          entry.state === "failed" &&
            trouble(
              entry.reason ?? "",
              () => outbox.retry(entry.key),
              () => outbox.discard(entry.key),
            ),
        ),
    );
  }

  /** @param {number} number */
  #mark(number) {
    this.#timeline.target = number;
    this.#timeline.needle = this.#search.query;
    this.#draw();
  }

  /** @param {() => Promise<void>} go somewhere in the chat */
  async #load(go) {
    // Who goes elsewhere no longer wants to go where that failed.
    this.#trouble?.remove();
    this.#trouble = undefined;
    try {
      await go();
    } catch (error) {
      if (!this.#closed.signal.aborted && !isAbort(error)) this.#tell(error, () => void this.#load(go));
    }
  }

  /**
   * @param {unknown} error why a page could not be read
   * @param {() => void} again drawing asks again for what is missing in view
   */
  #tell(error, again = () => this.#draw()) {
    this.#again = again;
    this.#trouble = failure("Some messages could not be loaded", error, () => this.#forgetTrouble());
    this.#state.replaceChildren(this.#trouble);
  }

  /** Try again what could not be read, now that there is hope. */
  #forgetTrouble() {
    if (!this.#trouble) return;
    this.#trouble.remove();
    this.#trouble = undefined;
    this.#again();
  }

  /** @param {Problem | undefined} problem why there is nothing more to come */
  #end(problem) {
    this.#composer.element.inert = true;
    this.#state.replaceChildren(
      failure(problem?.status === 404 ? "This chat is gone" : "The stream is refused", problem),
    );
  }
}
