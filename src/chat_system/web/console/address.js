// The address: #/<application>/<chat>/<message>, each part but the first optional. It can be bookmarked, reloaded and
// gone back to. An application stands there by the beginning of its token, which opens nothing.

import { shortOf } from "./session.js";

/** @import { Place } from "./types.js" */

/**
 * @param {string} hash
 * @returns {Place}
 */
export function placeOf(hash) {
  const found = /^#\/([\w-]+)(?:\/(\d{1,10})(?:\/(\d{1,10}))?)?$/.exec(hash);
  if (!found) return {};
  const [, application, chat, message] = found;
  return { application, chat: chat ? Number(chat) : undefined, message: message ? Number(message) : undefined };
}

/**
 * @param {string} [token]
 * @param {number} [chat]
 * @param {number} [message]
 * @returns {string} the address as a link's href
 */
export function addressOf(token, chat, message) {
  return `#/${[token && shortOf(token), chat, message].filter(Boolean).join("/")}`;
}
