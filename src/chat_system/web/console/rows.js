// How one message looks.

import { addressOf } from "./address.js";
import { el, foreign, marked } from "./dom.js";
import { matches } from "./folding.js";
import { clockOf, countOf, dayOf, fullTimeOf, isSameDay } from "./times.js";

/** @import { Message } from "./types.js" */
/** @import { Change } from "./changes.js" */

/** Messages of one sender within this time are shown as one piece of talk. */
const PAUSE_MS = 5 * 60_000;
const HUES = 6;

/** What is longer is shown in part, until it is asked for. */
const SHOWN_CHARACTERS = 3_000;
const SHOWN_LINES = 30;
const METADATA_CHARACTERS = 10_000;

/**
 * @typedef {object} Shown all that a row depends on
 * @property {Message} message
 * @property {Message | undefined} previous the message above it
 * @property {Change | undefined} change what the reader did to it and the server has not confirmed
 * @property {string} needle what is to be marked in it
 */

/** @type {WeakMap<HTMLElement, Shown>} */
const drawn = new WeakMap();

/** Rows that the reader has opened whole. @type {WeakSet<HTMLElement>} */
const opened = new WeakSet();

/**
 * @param {string} token
 * @param {number} chat
 * @param {number} number
 */
export function createRow(token, chat, number) {
  return el(
    "article",
    {
      className: "message",
      tabIndex: -1,
      "aria-posinset": number,
      "aria-setsize": -1,
      "aria-labelledby": `message-${number}`,
    },
    el("p", { className: "day", hidden: true }),
    el(
      "a",
      { className: "number", tabIndex: -1, href: addressOf(token, chat, number), title: "Link to this message" },
      String(number),
    ),
    el("div", { className: "head", id: `message-${number}` }),
    el("div", { className: "body", dir: "auto" }),
    el("div", { className: "notes" }),
  );
}

/**
 * @param {HTMLElement} row
 * @param {Shown} shown
 * @param {{retry: () => void, discard: () => void}} onTrouble
 */
export function drawRow(row, shown, onTrouble) {
  const before = drawn.get(row);
  const same =
    before && before.message === shown.message && before.change === shown.change && before.needle === shown.needle;
  if (!same || before.previous !== shown.previous) drawJoint(row, shown);
  drawn.set(row, shown);
  if (same) return;
  const { message, change, needle } = shown;
  const [, , head, body, notes] = /** @type {HTMLElement[]} */ ([...row.children]);
  const deleted = message.deleted_at !== null || change?.kind === "delete";
  row.classList.toggle("deleted", deleted);
  row.classList.toggle("under-way", change?.state === "saving");
  head.replaceChildren(...headOf(message, change));
  drawBody(row, body, deleted ? null : (change?.body ?? message.body ?? ""), needle);
  notes.replaceChildren(...notesOf(message, deleted, change, onTrouble));
}

/**
 * What lies between a message and the one above it: a new day, a new sender, a pause, or nothing.
 * @param {HTMLElement} row
 * @param {Shown} shown
 */
function drawJoint(row, { message, previous }) {
  const day = /** @type {HTMLElement} */ (row.firstElementChild);
  const newDay = !previous || !isSameDay(previous.created_at, message.created_at);
  day.hidden = !newDay;
  if (newDay) day.textContent = dayOf(message.created_at);
  const pause = previous ? Date.parse(message.created_at) - Date.parse(previous.created_at) : 0;
  row.classList.toggle("goes-on", !newDay && previous?.sender === message.sender && pause < PAUSE_MS);
}

/**
 * @param {Message} message
 * @param {Change} [change]
 */
function headOf(message, change) {
  const edited = message.deleted_at === null && (message.updated_at !== message.created_at || change?.kind === "edit");
  return [
    senderName(message.sender),
    el("time", { dateTime: message.created_at, title: fullTimeOf(message.created_at) }, clockOf(message.created_at)),
    edited && el("span", { className: "aside", title: `Edited ${fullTimeOf(message.updated_at)}` }, "edited"),
  ].filter((child) => child !== false);
}

/** @param {string | null} sender */
export function senderName(sender) {
  if (sender === null) return el("span", { className: "sender nobody" }, "no sender");
  let hash = 0;
  for (const character of sender) hash = (hash * 31 + (character.codePointAt(0) ?? 0)) % 65_521;
  return foreign(sender, `sender hue-${hash % HUES}`);
}

/**
 * @param {HTMLElement} row
 * @param {HTMLElement} body
 * @param {string | null} text null for a deleted message's
 * @param {string} needle
 */
function drawBody(row, body, text, needle) {
  if (text === null) {
    body.replaceChildren("deleted");
    return;
  }
  const part = opened.has(row) ? text : beginningOf(text);
  body.replaceChildren(...(needle ? marked(part, matches(part, needle)) : [part]));
  if (part.length < text.length) {
    const onclick = () => {
      opened.add(row);
      drawBody(row, body, text, needle);
      row.focus();
    };
    body.append("… ", el("button", { type: "button", className: "quiet", onclick }, "Show all of it"));
  }
}

/** @param {string} text */
function beginningOf(text) {
  const lines = text.split("\n", SHOWN_LINES + 1);
  const part = lines.length > SHOWN_LINES ? lines.slice(0, SHOWN_LINES).join("\n") : text;
  return beginning(part, SHOWN_CHARACTERS);
}

/**
 * @param {string} text
 * @param {number} length
 */
function beginning(text, length) {
  // Never between the two halves of one character.
  return text.length <= length ? text : text.slice(0, length).replace(/[\uD800-\uDBFF]$/, "");
}

/**
 * @param {Message} message
 * @param {boolean} deleted
 * @param {Change | undefined} change
 * @param {{retry: () => void, discard: () => void}} onTrouble
 */
function notesOf(message, deleted, change, onTrouble) {
  const notes = [];
  if (message.metadata && !deleted) notes.push(metadataOf(message.metadata));
  if (change?.state === "failed") notes.push(trouble(change.reason ?? "", onTrouble.retry, onTrouble.discard));
  return notes;
}

/** @param {Record<string, unknown>} metadata */
function metadataOf(metadata) {
  const details = el("details", { className: "metadata" }, el("summary", {}, "Metadata"));
  // Not before it is looked at: that of 400 rows would be megabytes of text that no one reads.
  const show = () => {
    const text = JSON.stringify(metadata, null, 2);
    const part = beginning(text, METADATA_CHARACTERS);
    details.append(el("pre", { tabIndex: 0 }, part));
    if (part.length < text.length)
      details.append(
        el("p", { className: "aside" }, `The first ${countOf(part.length)} of ${countOf(text.length)} characters.`),
      );
  };
  details.addEventListener("toggle", show, { once: true });
  return details;
}

/**
 * @param {string} reason
 * @param {() => void} retry
 * @param {() => void} discard
 */
export function trouble(reason, retry, discard) {
  return el(
    "p",
    { className: "trouble", role: "alert" },
    el("span", {}, reason),
    el("button", { type: "button", className: "small", onclick: retry }, "Try again"),
    el("button", { type: "button", className: "small quiet", onclick: discard }, "Discard"),
  );
}
