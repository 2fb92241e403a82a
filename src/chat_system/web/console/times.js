// Times and numbers as people read them, in the browser's own language and zone.

const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", year: "numeric", month: "long", day: "numeric" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const SHORT = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const COUNT = new Intl.NumberFormat();

/** @param {string} time */
export const dayOf = (time) => DAY.format(new Date(time));

/** @param {string} time */
export const clockOf = (time) => CLOCK.format(new Date(time));

/** @param {string} time */
export const shortDayOf = (time) => SHORT.format(new Date(time));

/** @param {string} time */
export const fullTimeOf = (time) => FULL.format(new Date(time));

/** @param {number} count */
export const countOf = (count) => COUNT.format(count);

/**
 * @param {number} count
 * @param {string} what
 */
export const numberOf = (count, what) => `${countOf(count)} ${what}${count === 1 ? "" : "s"}`;

/**
 * @param {string} one
 * @param {string} other
 */
export function isSameDay(one, other) {
  return new Date(one).toDateString() === new Date(other).toDateString();
}
