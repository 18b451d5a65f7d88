/**
 * Send events to a capture host with the official posthog SDK for Node.
 *
 *   node send_node.mjs --host http://127.0.0.1:8010 --token phc_sandbox --count 500 --seed 1
 *
 * The same seed gives the same events (uuids aside), spread backwards from --end (default: now) over
 * --span-days with a busy day and empty hours. Prints one JSON line with the number and the uuids of
 * the events handed to the SDK, and exits with 1 if the SDK could not deliver some of them.
 */
import { parseArgs } from 'node:util'
import { PostHog } from 'posthog-node'
import { pick, random, timestamps } from './simulation.mjs'

const { values: args } = parseArgs({
  options: {
    host: { type: 'string' },
    token: { type: 'string' },
    count: { type: 'string' },
    seed: { type: 'string', default: '1' },
    'span-days': { type: 'string', default: '2' },
    end: { type: 'string' },
  },
})
const count = Number(args.count)
const rng = random(Number(args.seed))
const end = args.end ? new Date(args.end) : new Date()
const clock = timestamps(rng, end, Number(args['span-days']))
const MAX_FLAG_READS = 40 // each is a request to the host

let at = end
let flagReads = 0
const uuids = []
const failures = []
const client = new PostHog(args.token, {
  host: args.host,
  flushAt: 50,
  maxQueueSize: count + 100,
  // identify, alias, groupIdentify and flag reads take no timestamp, so date everything here.
  before_send: (message) => ({ ...message, timestamp: message.timestamp ?? at }),
})
for (const type of ['capture', 'identify', 'alias']) client.on(type, (message) => uuids.push(message.uuid))
client.on('error', (error) => failures.push(String(error)))

const TITLES = ['Crème brûlée torch', 'ハリネズミのぬいぐるみ', 'Hedgehog "XL" — 3\u00a0pcs', 'a\nb\tc\\d', '🦔']
const NUMBERS = [0, -1, Number.MAX_SAFE_INTEGER, 2 ** 53, 1e21, 1e-7, 0.1 + 0.2, 5e-324, Number.MAX_VALUE]

/** Custom events: name to properties. */
const EVENTS = {
  job_finished: () => ({ queue: pick(rng, ['mail', 'thumbnails']), ms: rng() * 5000, retries: Math.floor(rng() * 4), error: null }),
  invoice_created: () => ({
    invoice: `INV-${Math.floor(rng() * 1e6)}`,
    lines: Array.from({ length: 1 + Math.floor(rng() * 4) }, () => ({ title: pick(rng, TITLES), net: rng() * 100, vat: { rate: 0.19 } })),
    due: new Date(end.getTime() + 14 * 86400e3),
    paid: false,
  }),
  search_performed: () => ({ query: pick(rng, TITLES), results: Math.floor(rng() * 900), filters: [], $current_url: 'https://shop.example/search?q=%F0%9F%A6%94' }),
  numbers_seen: () => ({ values: NUMBERS, not_a_number: NaN, missing: undefined, big: String(2n ** 64n) }),
}

function fail() {
  const cause = new TypeError("Cannot read properties of undefined (reading 'id')")
  throw new Error('import failed: "orders.csv"\nline 7', { cause })
}

/** One call to the SDK; every call hands over one event, except a repeated flag read. */
async function act(timestamp) {
  const distinctId = `user-${String(Math.floor(300 * rng() ** 3)).padStart(3, '0')}`
  const draw = rng()
  if (draw < 0.06) {
    client.identify({ distinctId, properties: { $set: { email: `${distinctId}@example.com`, seats: 3 }, $set_once: { source: 'import' } } })
  } else if (draw < 0.08) {
    client.alias({ distinctId, alias: `legacy-${Math.floor(rng() * 1e9)}` })
  } else if (draw < 0.11) {
    client.groupIdentify({ groupType: 'company', groupKey: `company-${Math.floor(rng() * 12)}`, properties: { name: pick(rng, TITLES), arr: 12000.5 }, distinctId })
  } else if (draw < 0.14) {
    try {
      fail()
    } catch (error) {
      client.captureException(error, distinctId, { job: 'import' })
    }
  } else if (draw < 0.18 && flagReads < MAX_FLAG_READS) {
    flagReads += 1
    const flags = await client.evaluateFlags(distinctId)
    flags.getFlag(pick(rng, ['new-checkout', 'cta-copy', 'no-such-flag']))
  } else {
    const event = pick(rng, Object.keys(EVENTS))
    const groups = rng() < 0.3 ? { company: `company-${Math.floor(rng() * 12)}` } : undefined
    client.capture({ distinctId, event, properties: EVENTS[event](), groups, timestamp })
  }
  // Events are prepared asynchronously; wait, so that `at` and the count belong to this call.
  await new Promise(setImmediate)
}

while (uuids.length < count && failures.length === 0) {
  at = clock.next().value
  await act(at)
}
await client.shutdown(60_000)
console.log(JSON.stringify({ sdk: 'posthog-node', sent: uuids.length, uuids, failures }))
process.exitCode = failures.length > 0 ? 1 : 0
