//! Made-up events, any number of them, the same for the same arguments.

use std::collections::BTreeMap;

use uuid::Builder;

use super::store::{DAY, Event, Person, person_uuid};

const SECOND: i64 = 1_000_000;
const NAMES: [&str; 8] =
    ["$pageview", "$autocapture", "$pageleave", "order completed", "$identify", "Sign Up", "búsqueda ✓", "job_started"];
const PATHS: [&str; 6] = ["/", "/pricing", "/blog/événement-été", "/産品", "/checkout/step-2", "/search?q=a%20b"];
const BROWSERS: [&str; 4] = ["Chrome", "Safari", "Firefox", "Samsung Internet"];
const CHAIN: &str = r#"span.btn__label:attr__class="btn__label"nth-child="1"nth-of-type="1"text="Start \"free\" trial";a.btn:href="/signup"nth-child="2"nth-of-type="1""#;

/// JSON that a careless reader gets wrong.
const AWKWARD: [&str; 6] = [
    r#""nan":NaN,"infinite":Infinity,"negative":-Infinity,"list":[NaN,1],"text":"NaN""#,
    r#""huge":123456789012345678901234567890,"beyond_double":9007199254740993,"unsigned":18446744073709551615,"small":-0.0,"large":1e21"#,
    r#""emoji":"🦔🇩🇪 ñ","surrogates":"\ud83e\udd94","separators":"\u2028\u2029","nul":"\u0000""#,
    r#""quotes":"he said \"hi\" \\ back\/slash \n\t","":"empty key","k\"ey":1"#,
    r#""again":1,"again":2,"again":{"last":true}"#,
    r#""deep":[[[[[[[[[[[[[[[[[[[[{"a":{"b":{"c":null}}}]]]]]]]]]]]]]]]]]]]],"null":null,"empty":{}"#,
];

/// A small generator of random numbers (`SplitMix64`).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u32) -> i64 {
        // The high half times the bound is spread evenly enough and never reaches it.
        let high = self.next() >> 32;
        i64::try_from((high * u64::from(bound)) >> 32).unwrap_or_default()
    }

    pub(crate) fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        let index = self.below(u32::try_from(choices.len()).unwrap_or(1));
        usize::try_from(index).ok().and_then(|index| choices.get(index)).copied().unwrap_or_default()
    }
}

/// Of every hundred events: one late by forty days, one in the future, six with awkward properties, six
/// on one microsecond, two un-merged copies, a quarter on one heavy day. Of every thousand, two
/// hundred in a row share one microsecond.
pub(crate) fn events(project: u64, count: usize, seed: u64, newest: i64) -> Vec<Event> {
    let mut random = Random(seed ^ project.rotate_left(32));
    let heavy_day = (newest - 3 * DAY).div_euclid(DAY) * DAY;
    let mut events: Vec<Event> = Vec::with_capacity(count);
    for number in 0..count {
        let previous = events.last();
        let timestamp = match number % 100 {
            _ if number == 0 => newest,
            _ if (501..700).contains(&(number % 1000)) => previous.map_or(newest, |event| event.timestamp),
            7 => newest - 40 * DAY - random.below(1000) * SECOND,
            13 => newest + DAY + random.below(1000) * SECOND,
            41..=45 => previous.map_or(newest, |event| event.timestamp),
            75.. => heavy_day + random.below(86_400) * SECOND + random.below(1_000_000),
            _ => newest - random.below(30 * 86_400) * SECOND - random.below(1_000_000),
        };
        if matches!(number % 100, 61 | 62)
            && let Some(copied) = previous
        {
            let copy = Event { created_at: copied.created_at + 1000, ..copied.clone() };
            events.push(copy);
            continue;
        }
        let arrival = timestamp.min(newest) + random.below(5000) * 1000;
        let arrival = if number % 100 == 7 { newest - random.below(86_400) * SECOND } else { arrival };
        events.push(event(project, number, timestamp, arrival.div_euclid(1000) * 1000, &mut random));
    }
    events
}

fn event(project: u64, number: usize, timestamp: i64, created_at: i64, random: &mut Random) -> Event {
    let user = random.below(500);
    let distinct_id = if user % 3 == 0 { format!("user-{user}@exämple.com") } else { format!("anonymous-{user}") };
    let millis = u64::try_from(timestamp.div_euclid(1000)).unwrap_or_default();
    let (high, low) = (random.next(), random.next());
    let mut bytes = [0_u8; 16];
    for (byte, value) in bytes.iter_mut().zip(high.to_be_bytes().into_iter().chain(low.to_be_bytes())) {
        *byte = value;
    }
    // Some SDKs count time in the first half, others are random all over.
    let uuid = if number.is_multiple_of(3) {
        Builder::from_random_bytes(bytes)
    } else {
        let mut rest = [0_u8; 10];
        rest.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Builder::from_unix_timestamp_millis(millis, &rest)
    };
    let name = random.pick(&NAMES);
    let session = session(user, timestamp, random.below(11) == 0);
    let awkward = match number % 100 {
        index @ 29..=34 => AWKWARD.get(index - 29).copied().unwrap_or_default(),
        _ => r#""plain":true"#,
    };
    let path = random.pick(&PATHS);
    let properties = format!(
        r#"{{"$os":"Mac OS X","$os_version":"10.15.7","$browser":"{browser}","$browser_version":{version},"$device_type":"Desktop","$current_url":"https://shop.example.com{path}","$host":"shop.example.com","$pathname":"{path}","$referrer":"https://search.example.com/","$referring_domain":"search.example.com","$screen_height":1080,"$screen_width":1920,"$viewport_height":947,"$viewport_width":1680,"$lib":"web","$lib_version":"1.2{patch}.0","$insert_id":"{insert:016x}","$time":{time},"$raw_user_agent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36","$session_id":"{session}","$window_id":"{window}","$group_0":"company-{company}","$ip":"203.0.113.{ip}","$geoip_city_name":"Zürich","$geoip_country_code":"CH","$geoip_latitude":47.3{ip},"$feature/checkout":"control","$active_feature_flags":["checkout","búsqueda"],"number":{number},"revenue":{revenue}.5,"coupon":null,"items":[{{"sku":"A-{insert:x}","qty":2,"price":19.99}},{{"sku":"B","tags":[]}}],"$set_once":{{"$initial_current_url":"https://shop.example.com{path}"}},{awkward}}}"#,
        browser = random.pick(&BROWSERS),
        version = 100 + random.below(50),
        patch = random.below(99),
        insert = random.next(),
        time = timestamp / SECOND,
        ip = random.below(256),
        revenue = random.below(1000),
        window = window(&session),
        company = user % 20,
    );
    Event {
        uuid: uuid.into_uuid(),
        event: name.to_owned(),
        properties,
        timestamp,
        created_at,
        person_id: person_uuid(project, &distinct_id),
        distinct_id,
        elements_chain: if name == "$autocapture" { CHAIN.to_owned() } else { String::new() },
        window_id: window(&session),
        session_id: session,
        groups: [format!("company-{}", user % 20), String::new(), String::new(), String::new(), String::new()],
        person_mode: if user % 10 == 1 { "propertyless" } else { "full" }.to_owned(),
        visible_at: None,
    }
}

/// A user has one session per day, whose id counts time in its first half; one event in eleven is from
/// a server and has none.
fn session(user: i64, timestamp: i64, server: bool) -> String {
    if server {
        return String::new();
    }
    let day = timestamp.div_euclid(DAY);
    let same = |value: i64| Random(value.cast_unsigned()).next();
    let seed = same(day) ^ same(user).rotate_left(7);
    let millis = u64::try_from(day * DAY / 1000).unwrap_or_default() + seed % 86_400_000;
    let mut rest = [0_u8; 10];
    rest.iter_mut().zip(seed.to_be_bytes()).for_each(|(to, from)| *to = from);
    Builder::from_unix_timestamp_millis(millis, &rest).into_uuid().to_string()
}

fn window(session: &str) -> String {
    if session.is_empty() { String::new() } else { format!("{session}-w") }
}

/// The persons behind those events; one in five was never seen by PostHog's newer columns.
pub(crate) fn persons(events: &[Event]) -> Vec<Person> {
    let mut persons: BTreeMap<&str, Person> = BTreeMap::new();
    for event in events.iter().filter(|event| event.person_mode == "full") {
        let person = persons.entry(&event.distinct_id).or_insert_with(|| Person {
            id: event.person_id,
            created_at: event.created_at,
            properties: format!(r#"{{"email":"{0}","name":"Zoë {0}","plan":"pro"}}"#, event.distinct_id),
            is_identified: event.distinct_id.starts_with("user"),
            last_seen_at: None,
            distinct_ids: vec![event.distinct_id.clone()],
        });
        person.created_at = person.created_at.min(event.created_at);
        if !event.person_id.as_u128().is_multiple_of(5) {
            person.last_seen_at = person.last_seen_at.max(Some(event.created_at));
        }
    }
    persons.into_values().collect()
}
