/**
 * Send events with posthog-js: visitors click through a small shop in headless Chromium.
 *
 *   node browse.mjs --host http://127.0.0.1:8010 --token phc_sandbox --visitors 80 --seed 1 \
 *     --span-days 14 --end 2026-11-14T22:00:00Z
 *
 * The pages in site/ are served on loopback under the name http://shop.example, and the capture host
 * is reached as http://events.shop.example, so no port or machine name gets into the events. Each
 * visitor is a fresh browser profile whose clock runs at a simulated time and jumps between actions.
 * Prints one JSON line with the number of visitors and visits.
 */
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { parseArgs } from 'node:util'
import { chromium } from 'playwright-core'
import { pick, random, timestamps } from './simulation.mjs'

const { values: args } = parseArgs({
  options: {
    host: { type: 'string' },
    token: { type: 'string' },
    visitors: { type: 'string', default: '80' },
    seed: { type: 'string', default: '1' },
    'span-days': { type: 'string', default: '14' },
    end: { type: 'string' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
  },
})
const end = args.end ? new Date(args.end) : new Date()
const rng = random(Number(args.seed))
const SHOP = 'http://shop.example'
const PARALLEL = 2
const SECOND = 1000
const DAY = 86400 * SECOND
const LAST = Number(args.visitors) - 1

const file = (path) => readFileSync(new URL(path, import.meta.url))
const page = (name) => ({ type: 'text/html', body: file(`site/${name}.html`) })
const script = (body) => ({ type: 'text/javascript', body })
const posthogJs = createRequire(import.meta.url).resolve('posthog-js/dist/array.full.no-external.js')
const SITE = {
  '/': page('index'),
  '/pricing': page('pricing'),
  '/docs/getting-started': page('docs'),
  '/signup': page('signup'),
  '/checkout': page('checkout'),
  '/app.js': script(file('site/app.js')),
  '/posthog.js': script(readFileSync(posthogJs)),
}
const server = createServer((request, response) => {
  const found = SITE[new URL(request.url, SHOP).pathname]
  response.writeHead(found ? 200 : 404, { 'Content-Type': `${found?.type ?? 'text/plain'}; charset=utf-8` })
  response.end(found?.body)
})
await new Promise((listening) => server.listen(0, '127.0.0.1', listening))

const CHROME = 'Chrome/156.0.0.0'
const DEVICES = [
  { userAgent: `Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) ${CHROME} Safari/537.36`, locale: 'de-DE', timezoneId: 'Europe/Berlin', viewport: { width: 1440, height: 900 } },
  { userAgent: `Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) ${CHROME} Safari/537.36`, locale: 'en-US', timezoneId: 'America/Los_Angeles', viewport: { width: 1728, height: 1000 } },
  { userAgent: `Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) ${CHROME} Mobile Safari/537.36`, locale: 'pt-BR', timezoneId: 'America/Sao_Paulo', viewport: { width: 412, height: 915 } },
  { userAgent: 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1', locale: 'ja-JP', timezoneId: 'Asia/Tokyo', viewport: { width: 393, height: 852 } },
  { userAgent: 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0', locale: 'en-IN', timezoneId: 'Asia/Kolkata', viewport: { width: 1280, height: 720 } },
]
const ENTRIES = ['/', '/?utm_source=newsletter&utm_medium=email&utm_campaign=herbst%20aktion', '/pricing?gclid=EAIaIQobChMI', '/docs/getting-started', '/?q="quotes"&x=1']
const REFERRERS = [undefined, 'https://www.google.com/', 'https://news.example/item?id=1']
const CONFIGS = [{}, {}, { person_profiles: 'always' }]

/** Runs in the page before its scripts: shifts Date, keeping the shift across the tab's pages. */
function simulateClock({ start, simulation }) {
  window.simulation = simulation
  const RealDate = Date
  let shift
  try {
    shift = Number(sessionStorage.getItem('shift') ?? start - RealDate.now())
  } catch {
    return // about:blank has no storage, and no scripts either
  }
  globalThis.Date = class extends RealDate {
    constructor(...parts) {
      if (parts.length) super(...parts)
      else super(RealDate.now() + shift)
    }
    static now() {
      return RealDate.now() + shift
    }
  }
  window.advance = (milliseconds) => {
    shift += milliseconds
    sessionStorage.setItem('shift', String(shift))
  }
  window.advance(0)
}

/** What a visitor may do, as [weight, path, action]; actions on another page go there first. */
const ACTIONS = [
  [5, '*', (tab) => tab.locator('nav a').nth(Math.floor(rng() * 3)).click()],
  [4, '/', (tab) => tab.locator('[data-cart]').nth(Math.floor(rng() * 2)).click()],
  [2, '/', (tab) => tab.click('#break')],
  [1, '/', (tab) => tab.click('.dead').then(() => tab.waitForTimeout(3200))],
  [3, '/pricing', (tab) => tab.locator('[data-tab]').nth(Math.floor(rng() * 2)).click()],
  [2, '/pricing', (tab) => tab.selectOption('#seats', pick(rng, ['10', '100']))],
  [2, '/pricing', (tab) => tab.click('.rage', { clickCount: 4, delay: 20 })],
  [2, '/docs/getting-started', (tab) => tab.click('.anchor')],
  [1, '/docs/getting-started', (tab) => tab.click('#code', { clickCount: 3 }).then(() => tab.keyboard.press('Control+C'))],
  [1, '/docs/getting-started', (tab) => tab.mouse.wheel(0, 1500)],
  [2, '/signup', async (tab, visitor) => {
    await tab.fill('[name=address]', `visitor-${visitor}@company-${visitor % 9}.example`)
    await tab.check('[name=terms]')
    await tab.selectOption('[name=plan]', pick(rng, ['free', 'scale']))
    await tab.click('[type=submit]')
  }],
  [2, '/checkout', async (tab) => {
    await tab.fill('textarea', pick(rng, ['Bitte als Geschenk einpacken 🎁', 'ring "twice"\nthen wait', '']))
    await tab.click('[type=submit]')
  }],
  [2, '*', (tab) => tab.evaluate((flag) => posthog.getFeatureFlag(flag), pick(rng, ['new-checkout', 'cta-copy', 'dark-mode', 'no-such-flag']))],
  [1, '*', (tab) => tab.evaluate(() => posthog.register({ theme: 'dunkel', experiments: { a: [1, null, 'x'] }, $locale: navigator.language }))],
]
const WEIGHTED = ACTIONS.flatMap(([weight, path, action]) => Array(weight).fill({ path, action }))

/** One visit: a tab opened at a simulated time, some actions, and the tab closed. */
async function visit(context, visitor, start, simulation) {
  const tab = await context.newPage()
  await tab.addInitScript(simulateClock, { start: start.getTime(), simulation })
  const settle = async () => {
    await tab.waitForTimeout(150)
    await tab.waitForFunction(() => window.posthog?.__loaded)
  }
  const open = async (url, referer) => {
    await tab.goto(SHOP + url, { referer })
    await settle()
  }
  await open(pick(rng, ENTRIES), pick(rng, REFERRERS))
  for (let step = 3 + Math.floor(rng() * 5); step > 0; step -= 1) {
    await tab.evaluate((think) => window.advance(think), Math.floor((2 + 60 * rng() ** 3) * SECOND))
    const { path, action } = pick(rng, WEIGHTED)
    if (path !== '*' && new URL(tab.url()).pathname !== path) {
      await tab.locator(`nav a[href="${path}"]`).click()
      await tab.waitForURL((url) => url.pathname === path)
      await settle()
    }
    await action(tab, visitor)
    await settle()
  }
  if (visitor === LAST) {
    const moments = [end.getTime() - 40 * DAY, end.getTime() + 2 * DAY]
    await tab.evaluate((times) => times.forEach((time) => posthog.capture('offline_synced', { time }, { timestamp: new Date(time) })), moments)
  }
  await tab.waitForTimeout(400) // the request queue
  await tab.goto('about:blank') // leaving sends the rest
  await tab.waitForTimeout(200)
  await tab.close()
}

// The first visitor comes 40 days early; the last has an event from back then and one from the future.
const clock = timestamps(rng, end, Number(args['span-days']))
const visitors = Array.from({ length: Number(args.visitors) }, (_, number) => ({ number, start: clock.next().value }))
visitors[0].start = new Date(end.getTime() - 40 * DAY)
let visits = 0

const browser = await chromium.launch({
  executablePath: args.chromium,
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    // posthog-js drops the events of visitors that look like bots: no navigator.webdriver, and no
    // "HeadlessChrome", which shows through a device's user agent while a page is being left.
    '--disable-blink-features=AutomationControlled', `--user-agent=${DEVICES[0].userAgent}`,
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    `--host-resolver-rules=MAP shop.example:80 127.0.0.1:${server.address().port},MAP events.shop.example:80 ${new URL(args.host).host},MAP * ~NOTFOUND,EXCLUDE 127.0.0.1`,
  ],
})
async function walk() {
  for (let visitor = visitors.shift(); visitor; visitor = visitors.shift()) {
    const { number, start } = visitor
    const context = await browser.newContext(pick(rng, DEVICES))
    context.setDefaultTimeout(10_000)
    const simulation = { token: args.token, apiHost: 'http://events.shop.example', config: pick(rng, CONFIGS) }
    await visit(context, number, start, simulation)
    visits += 1
    const again = new Date(start.getTime() + (1 + Math.floor(rng() * 2)) * DAY + Math.floor(rng() * 3000) * SECOND)
    if (rng() < 0.15 && again < end && number > 0) {
      await visit(context, number, again, simulation) // same cookies, a new session
      visits += 1
    }
    await context.close()
  }
}
try {
  await Promise.all(Array.from({ length: PARALLEL }, walk))
  console.log(JSON.stringify({ sdk: 'posthog-js', visitors: Number(args.visitors), visits }))
} finally {
  await browser.close()
  server.close()
}
