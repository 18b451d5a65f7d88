// The shop's own script: starts posthog-js and gives the pages something to do.
const { token, apiHost, config } = window.simulation

posthog.init(token, {
  api_host: apiHost,
  capture_pageview: 'history_change',
  capture_pageleave: true,
  capture_performance: { web_vitals: true },
  capture_exceptions: true,
  capture_dead_clicks: true,
  rageclick: true,
  autocapture: { capture_copied_text: true },
  request_queue_config: { flush_interval_ms: 250 },
  disable_session_recording: true,
  disable_surveys: true,
  ...config,
})

const on = (selector, type, handler) =>
  document.querySelectorAll(selector).forEach((element) => element.addEventListener(type, handler))

on('[data-cart]', 'click', (event) => {
  const item = event.currentTarget.dataset
  posthog.capture('product_added', {
    product: { id: Number(item.cart), title: item.title, price: Number(item.price), tags: ['new', 'größe-xl'] },
    quantity: 1,
    gift: false,
    note: null,
  })
})
on('[data-tab]', 'click', (event) => history.pushState({}, '', '?tab=' + event.currentTarget.dataset.tab))
on('#break', 'click', () => {
  throw new RangeError('stock level "−1" is out of range')
})
on('#signup', 'submit', (event) => {
  event.preventDefault()
  const form = new FormData(event.target)
  const email = form.get('address')
  posthog.alias(`shop-${email}`)
  posthog.identify(email, { email, plan: form.get('plan') }, { first_plan: form.get('plan') })
  posthog.group('company', email.split('@')[1], { name: 'Hedgehog Wear GmbH & Co. "KG"', seats: 12 })
})
on('#checkout', 'submit', (event) => {
  event.preventDefault()
  posthog.capture('order_completed', {
    order_id: String(Date.now()),
    total: 129.9,
    currency: 'EUR',
    lines: [{ sku: 'HW-1', quantity: 2, discounts: [] }, { sku: 'HW-2', quantity: 1, discounts: [{ code: 'IGEL10', percent: 10 }] }],
    comment: event.target.comment.value,
  })
  posthog.setPersonProperties({ last_order_total: 129.9 }, { first_order: new Date().toISOString() })
})
