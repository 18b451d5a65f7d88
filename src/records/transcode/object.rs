//! Finds some values of a JSON object, and checks all of it: for lines of exported files.

use std::ops::Range;

use fearless_simd::{Level, Simd, dispatch};

use super::scan::{Stop, after_spaces, byte, scalar, string};
use crate::records::json_fields::FieldNames;

/// Where the requested values of an object stand.
pub(in crate::records) type Places = [Option<Range<usize>>];

/// An object whose values are looked for in a value of another object.
pub(in crate::records) struct Inner<'n> {
    /// The place that the other object's value fills.
    pub(in crate::records) place: usize,
    /// What is looked for in it.
    pub(in crate::records) names: &'n FieldNames,
}

/// Finds values of the object that `bytes` consist of; of a repeated key, the last one.
pub(in crate::records) fn find(
    bytes: &[u8],
    names: &FieldNames,
    inner: Option<&Inner<'_>>,
    found: &mut Places,
    open: &mut Vec<u8>,
) -> Result<(), Stop> {
    let end = dispatch!(Level::new(), simd => {
        Finder { simd, bytes, found, open }.members(after_spaces(bytes, 0), names, inner)
    })?;
    if after_spaces(bytes, end) == bytes.len() { Ok(()) } else { Err(Stop::Unsupported) }
}

struct Finder<'f, S> {
    simd: S,
    bytes: &'f [u8],
    found: &'f mut Places,
    open: &'f mut Vec<u8>,
}

impl<S: Simd> Finder<'_, S> {
    /// Reads the object at `at` and returns its end.
    fn members(&mut self, at: usize, names: &FieldNames, inner: Option<&Inner<'_>>) -> Result<usize, Stop> {
        self.simd.vectorize(
            #[inline(always)]
            || self.members_here(at, names, inner),
        )
    }

    #[inline(always)]
    fn members_here(&mut self, at: usize, names: &FieldNames, inner: Option<&Inner<'_>>) -> Result<usize, Stop> {
        let bytes = self.bytes;
        if byte(bytes, at)? != b'{' {
            return Err(Stop::Unsupported);
        }
        let mut at = after_spaces(bytes, at + 1);
        if byte(bytes, at)? == b'}' {
            return Ok(at + 1);
        }
        loop {
            let end = key(self.simd, bytes, at)?;
            let place = names.find(bytes.get(at + 1..end - 1).unwrap_or_default());
            if place.is_none() && bytes.get(at..end).is_some_and(|key| key.contains(&b'\\')) {
                return Err(Stop::Unsupported);
            }
            at = after_colon(bytes, end)?;
            let end = match inner.filter(|inner| place == Some(inner.place)) {
                Some(inner) => self.inner(at, inner)?,
                None => value(self.simd, bytes, at, self.open)?,
            };
            if let Some(found) = place.and_then(|place| self.found.get_mut(place)) {
                *found = Some(at..end);
            }
            at = after_spaces(bytes, end);
            match byte(bytes, at)? {
                b',' => at = after_spaces(bytes, at + 1),
                b'}' => return Ok(at + 1),
                _ => return Err(Stop::Unsupported),
            }
        }
    }

    fn inner(&mut self, at: usize, inner: &Inner<'_>) -> Result<usize, Stop> {
        // A repeated key would leave values of the first object behind.
        if self.found.get(inner.place).is_some_and(Option::is_some) {
            return Err(Stop::Unsupported);
        }
        match byte(self.bytes, at)? {
            b'{' => self.members(at, inner.names, None),
            _ => value(self.simd, self.bytes, at, self.open),
        }
    }
}

/// The end of any value. `open` is scratch space for what is open: `}` or `]` for each level.
#[inline(always)]
fn value<S: Simd>(simd: S, bytes: &[u8], mut at: usize, open: &mut Vec<u8>) -> Result<usize, Stop> {
    open.clear();
    loop {
        at = after_spaces(bytes, at);
        match byte(bytes, at)? {
            b'"' => at = string(simd, bytes, at + 1)?,
            b'{' => {
                at = after_spaces(bytes, at + 1);
                open.push(b'}');
                if byte(bytes, at)? != b'}' {
                    at = after_colon(bytes, key(simd, bytes, at)?)?;
                    continue;
                }
            }
            b'[' => {
                at = after_spaces(bytes, at + 1);
                open.push(b']');
                if byte(bytes, at)? != b']' {
                    continue;
                }
            }
            _ => at = scalar(bytes, at)?,
        }
        // Behind a value: everything that ends here, then what follows.
        while let Some(closing) = open.last() {
            at = after_spaces(bytes, at);
            let next = byte(bytes, at)?;
            at += 1;
            if next == *closing {
                open.pop();
            } else if next == b',' {
                if *closing == b'}' {
                    at = after_colon(bytes, key(simd, bytes, after_spaces(bytes, at))?)?;
                }
                break;
            } else {
                return Err(Stop::Unsupported);
            }
        }
        if open.is_empty() {
            return Ok(at);
        }
    }
}

/// The end of a key with its quotes.
#[inline(always)]
fn key<S: Simd>(simd: S, bytes: &[u8], at: usize) -> Result<usize, Stop> {
    match byte(bytes, at)? {
        b'"' => string(simd, bytes, at + 1),
        _ => Err(Stop::Unsupported),
    }
}

fn after_colon(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    let at = after_spaces(bytes, at);
    if byte(bytes, at)? != b':' {
        return Err(Stop::Unsupported);
    }
    Ok(after_spaces(bytes, at + 1))
}
