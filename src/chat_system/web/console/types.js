// The resources of the API as this console reads them. Types only: nothing here exists at run time.

/**
 * @typedef {object} Application
 * @property {string} token
 * @property {string} name
 * @property {number} chats_count
 * @property {string} created_at
 *
 * @typedef {object} Chat
 * @property {number} number
 * @property {string | null} title
 * @property {number} messages_count
 * @property {number} revision
 *
 * @typedef {object} Message
 * @property {number} number
 * @property {string | null} sender
 * @property {string | null} body null once deleted
 * @property {Record<string, unknown> | null} metadata
 * @property {number} revision that of its last change: of two states the higher one is newer
 * @property {string} created_at
 * @property {string} updated_at
 * @property {string | null} deleted_at
 * @property {number} [chat_number] in what a search over an application finds
 *
 * @typedef {object} Place what the address names
 * @property {string} [application] the beginning of an application's token
 * @property {number} [chat]
 * @property {number} [message]
 *
 * @typedef {[start: number, end: number]} Range a part of a text, in UTF-16 units
 */

export {};
