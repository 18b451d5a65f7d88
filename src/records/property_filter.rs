//! Properties that are dropped or hashed, in a document that is part of a record already.
//!
//! # Equivalence target
//! The same rules applied to the document as a tree; a property test compares both.
//!
//! # How it works
//! A document is written by its own path, which proves that it is JSON. Where rules are set, its members are then
//! looked at once more, while they are in the processor's cache, and those that stay are copied. All paths use this
//! one function, so both methods treat a property alike. Nothing is allocated per record: the copy goes into
//! space that is used again.
//!
//! Keys are compared as the texts that they stand for, whatever their spelling. What cannot be looked at is
//! dropped: values nested in more than [`DEEPEST`] objects and lists in which rules apply, keys that are no text.

use std::borrow::Cow;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::{PropertyRules, Treatment};
use crate::streams::{Column, Properties, Selection};

/// Properties of events whose members are properties of persons.
const OF_PERSONS: [&str; 2] = ["$set", "$set_once"];
/// Levels at which rules apply.
const DEEPEST: usize = 64;

/// The rules for one field.
pub(super) struct PropertyFilter {
    rules: Arc<PropertyRules>,
    /// The rules inside of [`OF_PERSONS`].
    person: Option<Arc<PropertyRules>>,
    /// What hashes are made with.
    mac: Option<Hmac<Sha256>>,
    /// Whether the value itself is hashed, because it is made from a property that is.
    is_hashed: bool,
}

/// Space for what is left of a document.
#[derive(Default)]
pub(super) struct FilterScratch {
    /// What is left of the document.
    pub(super) text: Vec<u8>,
    path: String,
}

/// Rules for the members of an object.
#[derive(Clone, Copy)]
struct View<'f> {
    rules: &'f PropertyRules,
    /// Number of bytes of the path that these rules do not see.
    skip: usize,
    /// Whether the object is kept, so that only what is named in it is dropped or hashed.
    is_kept: bool,
}

/// A property stands below several rules in `$set`: those of events, by its own name and by that of both, and
/// those of persons.
type Views<'f> = [Option<View<'f>>; 3];

impl PropertyFilter {
    /// The filter for the values of a column; none if they stay as they are.
    pub(super) fn of_column(column: &Column, selection: &Selection) -> Option<Self> {
        let (event, person) = (selection.event_rules(), selection.person_rules());
        let is_hashed = column.made_from.is_some_and(|property| event.of_value(property) == Treatment::Hash);
        match column.holds {
            Some(Properties::OfEvent) => Self::new(event, Some(person)),
            Some(Properties::OfPerson) => Self::new(person, None),
            None if is_hashed => Self::hashing(event),
            None => None,
        }
    }

    /// The filter for values that are hashed as a whole.
    pub(super) fn hashing(rules: &Arc<PropertyRules>) -> Option<Self> {
        Self::new(rules, None).map(|filter| Self { is_hashed: true, ..filter })
    }

    /// A filter by these rules; none if they keep everything. `person` are the rules inside of `$set` and
    /// `$set_once`.
    pub(super) fn new(rules: &Arc<PropertyRules>, person: Option<&Arc<PropertyRules>>) -> Option<Self> {
        let key = rules.key().or(person.and_then(|person| person.key()));
        let mac = key.and_then(|key| Hmac::new_from_slice(key.expose().as_bytes()).ok());
        let filter = || Self { rules: Arc::clone(rules), person: person.cloned(), mac, is_hashed: false };
        (!rules.is_empty() || person.is_some_and(|person| !person.is_empty())).then(filter)
    }

    /// Leaves what becomes of a value, given as JSON text, in `scratch`; null if rules cannot be applied to it.
    pub(super) fn apply(&self, text: &[u8], scratch: &mut FilterScratch) {
        let FilterScratch { text: left, path } = scratch;
        left.clear();
        path.clear();
        if self.is_hashed {
            self.hash(text, left);
            return;
        }
        let views = [Some(View { rules: &self.rules, skip: 0, is_kept: false }), None, None];
        let mut walk = Walk { filter: self, text, at: 0, left, path };
        walk.spaces();
        if walk.next() != Some(b'{') || walk.object(views, 0).is_none() {
            left.clear();
            left.extend_from_slice(b"null");
        }
    }

    /// The hash of a value, given as JSON text, as JSON text.
    fn hash(&self, value: &[u8], left: &mut Vec<u8>) {
        if value == b"null" {
            left.extend_from_slice(value);
            return;
        }
        let Some(mut mac) = self.mac.clone() else {
            left.extend_from_slice(b"null");
            return;
        };
        mac.update(&plain(value));
        left.push(b'"');
        for byte in mac.finalize().into_bytes() {
            left.extend(
                [byte >> 4, byte & 15]
                    .map(|digit| b"0123456789abcdef".get(usize::from(digit)).copied().unwrap_or(b'0')),
            );
        }
        left.push(b'"');
    }
}

/// What a value is hashed as: the text of a string, the JSON of anything else.
fn plain(value: &[u8]) -> Cow<'_, [u8]> {
    match value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) {
        None => Cow::Borrowed(value),
        Some(text) if !text.contains(&b'\\') => Cow::Borrowed(text),
        Some(_) => {
            serde_json::from_slice::<String>(value).map_or(Cow::Borrowed(value), |text| Cow::Owned(text.into_bytes()))
        }
    }
}

/// A walk through a document. Functions return none where the text is not what it has been proven to be.
struct Walk<'w> {
    filter: &'w PropertyFilter,
    text: &'w [u8],
    at: usize,
    left: &'w mut Vec<u8>,
    path: &'w mut String,
}

impl<'w> Walk<'w> {
    /// Copies what stays of the object at the place.
    fn object(&mut self, views: Views<'w>, depth: usize) -> Option<()> {
        self.at += 1;
        self.left.push(b'{');
        let begin = self.path.len();
        self.spaces();
        if self.next()? != b'}' {
            loop {
                let written = self.left.len();
                if self.left.last() != Some(&b'{') {
                    self.left.push(b',');
                }
                let key = self.string()?;
                let is_known = self.enter(key, depth);
                self.left.extend_from_slice(key);
                self.left.push(b':');
                self.spaces();
                self.at += 1;
                self.spaces();
                let is_written = self.member(views, is_known, depth)?;
                if !is_written {
                    self.left.truncate(written);
                }
                self.path.truncate(begin);
                self.spaces();
                self.at += 1;
                if self.text.get(self.at - 1)? == &b'}' {
                    self.left.push(b'}');
                    return Some(());
                }
                self.spaces();
            }
        }
        self.at += 1;
        self.left.push(b'}');
        Some(())
    }

    /// Adds a key to the path. False if it stands for no text.
    fn enter(&mut self, key: &[u8], depth: usize) -> bool {
        if depth > 0 {
            self.path.push('.');
        }
        let inside = key.get(1..key.len() - 1).unwrap_or_default();
        match std::str::from_utf8(inside) {
            Ok(name) if !name.contains('\\') => self.path.push_str(name),
            _ => match serde_json::from_slice::<String>(key) {
                Ok(name) => self.path.push_str(&name),
                Err(_) => return false,
            },
        }
        true
    }

    /// Copies the value of the member at the path, or its hash. False if it is dropped.
    fn member(&mut self, views: Views<'w>, is_known: bool, depth: usize) -> Option<bool> {
        let begin = self.at;
        let treatment =
            |view: &View<'_>| view.rules.treatment(self.path.get(view.skip..).unwrap_or_default(), view.is_kept);
        let treatment = views.iter().flatten().map(treatment).max().filter(|_| is_known).unwrap_or(Treatment::Drop);
        let holds_person = depth == 0 && self.filter.person.is_some() && OF_PERSONS.contains(&self.path.as_str());
        let inside = views.map(|view| {
            view.map(|view| View {
                is_kept: view.is_kept || view.rules.keeps(self.path.get(view.skip..).unwrap_or_default()),
                ..view
            })
        });
        match treatment {
            Treatment::Keep | Treatment::Descend if holds_person => {
                let skip = self.path.len() + 1;
                let person = self.filter.person.as_ref();
                let person = person.map(|rules| View { rules, skip, is_kept: rules.keeps("") });
                let event = Some(View { rules: &self.filter.rules, skip, is_kept: true });
                let [of_event, ..] = inside;
                self.descend([of_event, event, person], depth + 1)
            }
            Treatment::Descend => self.descend(inside, depth + 1),
            Treatment::Keep => {
                self.skip_value()?;
                self.left.extend_from_slice(self.text.get(begin..self.at)?);
                Some(true)
            }
            Treatment::Hash => {
                self.skip_value()?;
                self.filter.hash(self.text.get(begin..self.at)?, self.left);
                Some(true)
            }
            Treatment::Drop => {
                self.skip_value()?;
                Some(false)
            }
        }
    }

    /// Copies what stays of a value in which rules apply. False if nothing does.
    fn descend(&mut self, views: Views<'w>, depth: usize) -> Option<bool> {
        let begin = self.at;
        match self.next()? {
            _ if depth > DEEPEST => {
                self.skip_value()?;
                Some(false)
            }
            b'{' => {
                self.object(views, depth)?;
                Some(true)
            }
            b'[' => {
                self.list(views, depth)?;
                Some(true)
            }
            _ => {
                self.skip_value()?;
                let is_kept = views.iter().flatten().all(|view| view.is_kept);
                if is_kept {
                    self.left.extend_from_slice(self.text.get(begin..self.at)?);
                }
                Some(is_kept)
            }
        }
    }

    /// Copies what stays of a list: names go on in its elements.
    fn list(&mut self, views: Views<'w>, depth: usize) -> Option<()> {
        self.at += 1;
        self.left.push(b'[');
        self.spaces();
        if self.next()? == b']' {
            self.at += 1;
            self.left.push(b']');
            return Some(());
        }
        loop {
            let written = self.left.len();
            if self.left.last() != Some(&b'[') {
                self.left.push(b',');
            }
            if !self.descend(views, depth + 1)? {
                self.left.truncate(written);
            }
            self.spaces();
            self.at += 1;
            if self.text.get(self.at - 1)? == &b']' {
                self.left.push(b']');
                return Some(());
            }
            self.spaces();
        }
    }

    fn next(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn spaces(&mut self) {
        while self.next().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// The string at the place, with its quotes.
    fn string(&mut self) -> Option<&'w [u8]> {
        let begin = self.at;
        self.at += 1;
        loop {
            self.at += memchr::memchr2(b'"', b'\\', self.text.get(self.at..)?)?;
            if self.next()? == b'"' {
                self.at += 1;
                return self.text.get(begin..self.at);
            }
            self.at += 2;
        }
    }

    /// Goes behind the value at the place.
    fn skip_value(&mut self) -> Option<()> {
        let mut open = 0_usize;
        loop {
            match self.next()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    open += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    open -= 1;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    let rest = self.text.get(self.at..)?;
                    let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
                    self.at += rest.iter().position(is_end).unwrap_or(rest.len());
                }
            }
            if open == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::config::Config;
    use crate::streams::EVENTS;

    const KEY: &str = "0123456789abcdef";
    const LISTS: [&str; 3] = ["keep", "drop", "hash"];
    /// Of `mé@example.com` and `1.50`: `hmac.new(key, value, "sha256").hexdigest()` in Python.
    const HASHES: [&str; 2] = [
        "e18cba1c5a3a47da3282f728b99b4e8b1aa4420cff51e4892278356ea79c3d43",
        "a056620904076ee8b9f0a3b2cd795080dbec4a8e6b91c7cd71eeec33e58f7290",
    ];

    fn selection(event: &Value, person: &Value) -> Option<Selection> {
        let config = json!({
            "api_key": "phx_1", "start_date": "2026-01-01", "hash_key": KEY, "event_properties": event,
            "person_properties": person,
        });
        let config = Config::parse(config.to_string().as_bytes(), None).ok()?;
        Some(Selection::all().with_rules(&config.event_properties, &config.person_properties))
    }

    fn of_events(selection: &Selection) -> Option<PropertyFilter> {
        PropertyFilter::of_column(EVENTS.columns.iter().find(|column| column.holds.is_some()).unwrap(), selection)
    }

    fn left(selection: &Selection, text: &str) -> String {
        let mut scratch = FilterScratch::default();
        of_events(selection).unwrap().apply(text.as_bytes(), &mut scratch);
        String::from_utf8(scratch.text).unwrap()
    }

    #[test]
    fn what_stays_keeps_its_spelling() {
        let rules = json!({"drop": ["$ip", "$geoip_*", "a.b", "list.x"], "hash": ["email", "n", "none"]});
        let selection = selection(&rules, &json!({"drop": ["name"], "hash": ["phone"]})).unwrap();
        for (text, expected) in [
            ("{}", "{}"),
            ("{ }", "{}"),
            (r#"{"$ip":"1.2.3.4"}"#, "{}"),
            (
                r#"{"$ip":"1.2.3.4", "x" : 1.50 ,"$geoip_x":{"y":[1,"}"]},"é\n":"\"\u00e9"}"#,
                r#"{"x":1.50,"é\n":"\"\u00e9"}"#,
            ),
            (r#"{"\u0024ip":1,"a":{"b":1,"c":[ 1, 2 ]},"a.b":2}"#, r#"{"a":{"c":[ 1, 2 ]}}"#),
            (
                r#"{"list":[{"x":1},{"x":2,"y":3},[{"x":4}],5],"none":null}"#,
                r#"{"list":[{},{"y":3},[{}],5],"none":null}"#,
            ),
            // What an event sets of its person is under the rules of both.
            (
                r#"{"name":1,"$set":{"name":1,"$ip":2,"x":3},"$set_once":{"$geoip_a":1}}"#,
                r#"{"name":1,"$set":{"x":3},"$set_once":{}}"#,
            ),
            (r#"{"x":{"$set":{"name":1}},"$set":"name"}"#, r#"{"x":{"$set":{"name":1}},"$set":"name"}"#),
            // A key that stands for no text could be any.
            (r#"{"\ud800":1,"x":2}"#, r#"{"x":2}"#),
        ] {
            assert_eq!(left(&selection, text), expected, "{text}");
        }
        for text in ["[]", "1", "\"a\"", "", "{\"a\":"] {
            assert_eq!(left(&selection, text), "null", "{text}");
        }
    }

    #[test]
    fn rules_for_events_alone_reach_what_events_set_of_persons() {
        let selection = selection(&json!({"drop": ["email"], "hash": ["n"]}), &json!({})).unwrap();
        let text = r#"{"email":1,"$set":{"email":2,"x":3},"$set_once":{"email":4,"n":null},"a":{"email":5}}"#;
        assert_eq!(left(&selection, text), r#"{"$set":{"x":3},"$set_once":{"n":null},"a":{"email":5}}"#);
    }

    #[test]
    fn hashes_are_those_of_other_programs() {
        let selection = selection(&json!({"hash": ["email", "n"]}), &json!({})).unwrap();
        assert_eq!(
            left(&selection, r#"{"email":"m\u00e9@example.com","n":1.50}"#),
            format!(r#"{{"email":"{}","n":"{}"}}"#, HASHES[0], HASHES[1])
        );
        assert_eq!(left(&selection, r#"{"email":"mé@example.com"}"#), format!(r#"{{"email":"{}"}}"#, HASHES[0]));
    }

    #[test]
    fn what_lies_too_deep_for_its_rules_is_dropped() {
        let selection = selection(&json!({"drop": ["a.b"]}), &json!({})).unwrap();
        let deep = |levels: usize| format!(r#"{{"a":{}{{"b":1}}{},"x":1}}"#, "[".repeat(levels), "]".repeat(levels));
        assert_eq!(left(&selection, &deep(3)), r#"{"a":[[[{}]]],"x":1}"#);
        let left = left(&selection, &deep(100_000));
        assert!(left.ends_with(r#","x":1}"#) && !left.contains('b') && left.len() < 200, "{left}");
    }

    /// The rules of one setting, as a tree of lists.
    fn rules() -> impl Strategy<Value = Value> {
        let names = vec!["a", "b", "a.b", "a.b.*", "$ip", "$*", "$set", "$set.a", "email", "é*"];
        let list = move || subsequence(names.clone(), 0..4);
        (list(), list(), list()).prop_map(|(keep, drop, hash)| json!({"keep": keep, "drop": drop, "hash": hash}))
    }

    fn document() -> impl Strategy<Value = Value> {
        let key = || {
            select(vec!["a", "b", "a.b", "$ip", "$x", "$set", "$set_once", "email", "é\"", ""]).prop_map(str::to_owned)
        };
        let leaf = prop_oneof![Just(json!(null)), Just(json!("t\"}\\")), Just(json!(1.5)), Just(json!(true))];
        let inner = leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map(key(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        let key =
            select(vec!["a", "b", "a.b", "$ip", "$x", "$set", "$set_once", "email", "é\"", ""]).prop_map(str::to_owned);
        prop::collection::btree_map(key, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    /// A setting, the names that its rules do not see, and whether what is around is kept.
    type Context<'r> = (&'r Value, usize, bool);

    fn has(rules: &Value, list: &str, matches: impl Fn(&str) -> bool) -> bool {
        rules[list].as_array().unwrap().iter().any(|name| matches(name.as_str().unwrap()))
    }

    fn is_named(rules: &Value, list: &str, path: &str) -> bool {
        has(rules, list, |name| name == path || name.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix)))
    }

    fn is_kept(rules: &Value, path: &str) -> bool {
        rules["keep"] == json!([]) || is_named(rules, "keep", path)
    }

    /// What becomes of a value at a path; the same rules by the tree.
    fn expected(value: &Value, path: &[&str], contexts: &[Context<'_>], person: &Value) -> Option<Value> {
        let treatment = |(rules, skip, kept): &Context<'_>| {
            let path = path[*skip..].join(".");
            let inside = format!("{path}.");
            if is_named(rules, "drop", &path) {
                return Treatment::Drop;
            }
            if is_named(rules, "hash", &path) {
                return Treatment::Hash;
            }
            let leads_on = LISTS.iter().any(|list| has(rules, list, |name| name.starts_with(&inside)));
            if *kept || is_kept(rules, &path) || leads_on { Treatment::Descend } else { Treatment::Drop }
        };
        let treatments: Vec<Treatment> = contexts.iter().map(treatment).collect();
        if treatments.contains(&Treatment::Drop) {
            return None;
        }
        if treatments.contains(&Treatment::Hash) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
            mac.update(text.as_bytes());
            let hash =
                mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
            return Some(if value.is_null() { Value::Null } else { hash.into() });
        }
        let inside: Vec<Context<'_>> = contexts
            .iter()
            .map(|(rules, skip, kept)| (*rules, *skip, *kept || is_kept(rules, &path[*skip..].join("."))))
            .collect();
        let with_person = [inside[0], (inside[0].0, 1, true), (person, 1, is_kept(person, ""))];
        let sets_person = matches!(path, ["$set" | "$set_once"]);
        let inside: &[Context<'_>] = if sets_person { &with_person } else { &inside };
        within(value, path, inside, person)
    }

    fn within(value: &Value, path: &[&str], contexts: &[Context<'_>], person: &Value) -> Option<Value> {
        match value {
            Value::Object(members) => {
                let member = |(key, value): (&String, &Value)| {
                    let path = [path, &[key.as_str()]].concat();
                    Some((key.clone(), expected(value, &path, contexts, person)?))
                };
                Some(Value::Object(members.iter().filter_map(member).collect::<Map<_, _>>()))
            }
            Value::Array(values) => {
                Some(values.iter().filter_map(|value| within(value, path, contexts, person)).collect::<Vec<_>>().into())
            }
            _ => contexts.iter().all(|(.., kept)| *kept).then(|| value.clone()),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn text_and_tree_have_the_same_left(event in rules(), person in rules(), document in document(), spaced: bool) {
            let Some(selection) = selection(&event, &person) else { return Ok(()) };
            let Some(filter) = of_events(&selection) else { return Ok(()) };
            // A hash is one of the spelling.
            let spaced = spaced && [&event, &person].iter().all(|rules| rules["hash"] == json!([]));
            let text = if spaced { serde_json::to_string_pretty(&document).unwrap() } else { document.to_string() };
            let mut scratch = FilterScratch::default();
            filter.apply(text.as_bytes(), &mut scratch);
            let left: Value = serde_json::from_slice(&scratch.text).unwrap();
            let expected = within(&document, &[], &[(&event, 0, false)], &person).unwrap();
            prop_assert_eq!(left, expected, "{} {} {}", event, person, text);
        }
    }
}
