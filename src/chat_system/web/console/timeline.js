// The scrolling list of a chat's messages. The scroll bar stands for the whole chat; elements are there only for the
// messages in memory, and empty room of about their height for all others. Whoever comes near the edge of what is in
// memory gets the next page, whoever lands in the empty room the messages that belong there.

import { sync } from "./dom.js";
import { History } from "./history.js";
import { createRow, drawRow } from "./rows.js";

/** @import { Changes } from "./changes.js" */

/** Pages are loaded when this many screens of what is in memory are left. */
const AHEAD_SCREENS = 2;
/** How far from the bottom still counts as being there. */
const BOTTOM_PX = 48;
/** A jump is made when the scroll bar has come to rest. */
const REST_MS = 120;
/** Browsers stop at some height: Firefox at 17.9 million. */
const ROOM_MAX_PX = 12_000_000;
const ROW_GUESS_PX = 48;

export class Timeline {
  needle = "";
  /** The number whose row carries the marks of a search, 0 for none. */
  target = 0;
  #scroller;
  #above;
  #rows;
  #below;
  #history;
  #changes;
  #place;
  #onMoved;
  #onProblem;
  #rowPx = 0;
  #drawing = 0;
  #jump = 0;
  #following = true;
  /** The row that stays where it is while others come and go, and its distance from the top of the view. */
  #anchor = { number: 0, top: 0 };
  #resizes;

  /**
   * @param {{scroller: HTMLElement, above: HTMLElement, rows: HTMLElement, below: HTMLElement}} elements
   * @param {History} history
   * @param {Changes} changes
   * @param {{token: string, chat: number}} place
   * @param {{onMoved: () => void, onProblem: (error: unknown) => void}} listeners
   */
  constructor({ scroller, above, rows, below }, history, changes, place, { onMoved, onProblem }) {
    this.#scroller = scroller;
    this.#above = above;
    this.#rows = rows;
    this.#below = below;
    this.#history = history;
    this.#changes = changes;
    this.#place = place;
    this.#onMoved = onMoved;
    this.#onProblem = onProblem;
    scroller.addEventListener("scroll", this.#onScroll, { passive: true });
    this.#resizes = new ResizeObserver(() => this.draw());
    this.#resizes.observe(scroller);
  }

  /** Whether new messages are to be shown as they come. */
  get following() {
    return this.#following && this.#history.reachesEnd;
  }

  /** The number of the lowest row in view; 0 while there is none. */
  get lowest() {
    const bottom = this.#scroller.scrollTop + this.#scroller.clientHeight;
    return this.#rowAt(bottom - BOTTOM_PX)?.number ?? 0;
  }

  close() {
    this.#scroller.removeEventListener("scroll", this.#onScroll);
    this.#resizes.disconnect();
    cancelAnimationFrame(this.#drawing);
    clearTimeout(this.#jump);
    this.#rows.replaceChildren();
    this.#above.style.height = this.#below.style.height = "0";
  }

  /** Draw soon: of many changes within one frame only the last is drawn. */
  drawSoon() {
    if (!this.#drawing) this.#drawing = requestAnimationFrame(() => this.draw());
  }

  /** Go to the latest message and stay there. */
  async toEnd() {
    clearTimeout(this.#jump);
    if (!this.#history.reachesEnd || !this.#history.isOpen) await this.#history.openEnd();
    this.#following = true;
    this.draw();
  }

  /** @param {number} number show this message in the middle, and give it the focus */
  async to(number) {
    clearTimeout(this.#jump);
    if (!this.#history.at(number)) await this.#history.openAround(number);
    this.#following = false;
    const shown = Math.min(number, this.#history.last);
    this.#anchor = { number: shown, top: Math.round(this.#scroller.clientHeight / 3) };
    this.draw();
    this.#onScroll();
    this.focus(shown);
  }

  /** @param {number} number give the focus to this row, if it is there */
  focus(number) {
    const row = /** @type {HTMLElement | null} */ (this.#rows.querySelector(`[data-key="${number}"]`));
    row?.focus({ preventScroll: true });
    row?.scrollIntoView({ block: "nearest" });
    return row !== null;
  }

  /** Draw now. */
  draw() {
    cancelAnimationFrame(this.#drawing);
    this.#drawing = 0;
    const { messages, first, last, end } = this.#history;
    const hadFocus = this.#rows.contains(document.activeElement);
    sync(
      this.#rows,
      messages,
      (message) => message.number,
      (message) => createRow(this.#place.token, this.#place.chat, message.number),
      (row, message, index) => {
        const onTrouble = {
          retry: () => this.#changes.retry(message.number),
          discard: () => this.#changes.discard(message.number),
        };
        const needle = message.number === this.target ? this.needle : "";
        row.classList.toggle("target", message.number === this.target);
        drawRow(
          row,
          { message, previous: messages[index - 1], change: this.#changes.of(message.number), needle },
          onTrouble,
        );
      },
    );
    this.#rows.hidden = !messages.length;
    // Tab comes to one of them; from there the arrows go on.
    if (!this.#rows.querySelector(':scope > [tabindex="0"]')) this.#rowOf(last)?.setAttribute("tabindex", "0");
    // Measured once a chat: an estimate that changed would move everything.
    if (!this.#rowPx && messages.length) this.#rowPx = this.#rows.offsetHeight / messages.length || ROW_GUESS_PX;
    const rowPx = Math.min(this.#rowPx, ROOM_MAX_PX / Math.max(1, end));
    this.#above.style.height = `${Math.max(0, first - 1) * rowPx}px`;
    this.#below.style.height = `${(messages.length ? end - last : 0) * rowPx}px`;
    this.#hold();
    if (hadFocus && !this.#rows.contains(document.activeElement)) this.#scroller.focus({ preventScroll: true });
    this.#extend();
    this.#onMoved();
    // What stands below the messages may have grown.
    if (this.following) this.#hold();
  }

  /** Bring what was in view back to where it was. */
  #hold() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    if (this.#following && this.#history.reachesEnd) {
      this.#scroller.scrollTop = scrollHeight;
      return;
    }
    const row = this.#rowOf(this.#anchor.number);
    if (!row) return;
    const wanted = Math.max(0, Math.min(row.offsetTop - this.#anchor.top, scrollHeight - clientHeight));
    if (Math.abs(wanted - scrollTop) >= 1) this.#scroller.scrollTop = wanted;
  }

  #onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    this.#following = scrollHeight - clientHeight - scrollTop < BOTTOM_PX;
    const top = this.#rowAt(scrollTop);
    if (top) this.#anchor = { number: top.number, top: top.row.offsetTop - scrollTop };
    this.#extend();
    this.#onMoved();
  };

  /** Load what is about to come into view. */
  #extend() {
    const history = this.#history;
    const { scrollTop, clientHeight } = this.#scroller;
    if (history.isOpen && history.end > 0 && !history.messages.length) {
      this.#load(history.openEnd());
      return;
    }
    const start = this.#rows.offsetTop;
    const stop = start + this.#rows.offsetHeight;
    clearTimeout(this.#jump);
    const isAbove = scrollTop + clientHeight < start && history.first > 1;
    const isBelow = scrollTop > stop && !history.reachesEnd;
    if (isAbove || isBelow) {
      this.#jump = setTimeout(() => this.#load(this.#fill()), REST_MS);
      return;
    }
    if (scrollTop - start < AHEAD_SCREENS * clientHeight && history.first > 1) this.#load(history.extendBack());
    if (stop - scrollTop - clientHeight < AHEAD_SCREENS * clientHeight && !history.reachesEnd)
      this.#load(history.extendOn());
  }

  /** Load what belongs into the empty room that is in view. */
  async #fill() {
    const { scrollTop, clientHeight } = this.#scroller;
    const { first, last, end } = this.#history;
    const stop = this.#rows.offsetTop + this.#rows.offsetHeight;
    const passed =
      scrollTop < stop
        ? (scrollTop / (this.#above.offsetHeight || 1)) * (first - 1)
        : last + ((scrollTop - stop) / (this.#below.offsetHeight || 1)) * (end - last);
    const number = Math.min(end, Math.max(1, Math.round(passed) + 1));
    if (this.#following) await this.#history.openEnd();
    else await this.#history.openAround(number);
    // Who has scrolled on meanwhile is left there, and asked for again.
    const isThere = Math.abs(this.#scroller.scrollTop - scrollTop) < clientHeight;
    this.#anchor = { number: isThere ? number : 0, top: 0 };
    return true;
  }

  /** @param {Promise<unknown>} loading */
  #load(loading) {
    loading.then(
      (changed) => changed !== false && this.draw(),
      (error) => error?.name !== "AbortError" && this.#onProblem(error),
    );
  }

  /** @param {number} number */
  #rowOf(number) {
    return /** @type {HTMLElement | undefined} */ (this.#rows.children[number - this.#history.first]);
  }

  /**
   * @param {number} y from the top of the whole
   * @returns {{row: HTMLElement, number: number} | undefined} the row at this height, or the next one to it
   */
  #rowAt(y) {
    const rows = /** @type {HTMLCollectionOf<HTMLElement>} */ (this.#rows.children);
    if (!rows.length) return undefined;
    let low = 0;
    let high = rows.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rows[middle].offsetTop + rows[middle].offsetHeight <= y) low = middle + 1;
      else high = middle;
    }
    return { row: rows[low], number: Number(rows[low].dataset.key) };
  }
}
