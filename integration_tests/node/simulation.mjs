/** Seeded randomness and event times shared by the drivers. */

/** A seeded generator of numbers in [0, 1) (mulberry32). */
export function random(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A random element. */
export const pick = (rng, list) => list[Math.floor(rng() * list.length)]

/** Endless times before `end`: one busy day, 15 busy hours a day, and now and then a repeated time. */
export function* timestamps(rng, end, spanDays) {
  const days = Math.max(1, spanDays)
  const busyDay = Math.floor(days / 3)
  let previous = new Date(end.getTime() - 1000)
  for (;;) {
    if (rng() >= 0.02) {
      const day = rng() < 0.6 ? busyDay : Math.floor(rng() * days)
      previous = new Date(end.getTime() - day * 86400e3 - 1 - Math.floor(rng() * 15 * 3600e3))
    }
    yield previous
  }
}
