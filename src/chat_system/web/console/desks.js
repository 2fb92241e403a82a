// What the reader has begun in each chat: messages on their way, changes, a draft. It goes on while another chat is
// shown, and is there again afterwards.

import { api } from "./api.js";
import { Changes, Outbox } from "./changes.js";

/** @import { Server } from "./changes.js" */

/**
 * @typedef {object} Desk
 * @property {Outbox} outbox
 * @property {Changes} changes
 * @property {string} draft
 */

/** @type {Map<string, Desk>} */
const desks = new Map();

// What is not acknowledged would be lost with the page.
window.addEventListener("beforeunload", (event) => {
  if ([...desks.values()].some(isBusy)) event.preventDefault();
});

/** @param {Desk} desk */
function isBusy({ outbox, changes }) {
  return outbox.isWaiting || changes.isWaiting;
}

/**
 * @param {string} token
 * @param {number} chat
 * @returns {Desk} the chat's own, as it was left
 */
export function openDesk(token, chat) {
  const key = `${token}/${chat}`;
  /** @type {Server} */
  const server = {
    post: (message, once) => api.post(token, chat, message, once),
    edit: (number, body) => api.edit(token, chat, number, body),
    remove: async (number) => {
      await api.remove(token, chat, number);
      return api.message(token, chat, number);
    },
  };
  const desk = desks.get(key) ?? { outbox: new Outbox(server), changes: new Changes(server), draft: "" };
  desks.set(key, desk);
  return desk;
}

/** Forget all that was begun, whoever comes next. What is under way is still carried out. */
export function clearDesks() {
  desks.clear();
}

/**
 * Leave it as it is; it is kept if something on it is not done.
 * @param {Desk} desk
 */
export function leaveDesk(desk) {
  const { outbox, changes, draft } = desk;
  outbox.onChange = changes.onChange = () => {};
  outbox.onAcknowledged = changes.onConfirmed = () => {};
  if (isBusy(desk) || draft) return;
  for (const [key, known] of desks) if (known === desk) desks.delete(key);
}
