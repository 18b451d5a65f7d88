//! Finds some values of a JSON object, and checks all of it: for lines of exported files.

use std::ops::Range;

use super::scan::{Stop, after_spaces, byte, scalar, string};
use crate::streams::object::Names;

/// Where the values of an object stand that somebody looks for.
pub(in crate::streams) type Places = [Option<Range<usize>>];

/// An object whose values are looked for in a value of another object.
pub(in crate::streams) struct Inner<'n> {
    /// The place that the other object's value fills.
    pub(in crate::streams) place: usize,
    /// What is looked for in it.
    pub(in crate::streams) names: &'n Names,
}

/// Finds values of the object that `bytes` consist of; of a repeated key, the last one.
pub(in crate::streams) fn find(
    bytes: &[u8],
    names: &Names,
    inner: Option<&Inner<'_>>,
    found: &mut Places,
    open: &mut Vec<u8>,
) -> Result<(), Stop> {
    let begin = after_spaces(bytes, 0);
    let end = members(bytes, begin, names, found, &mut |at, place, found| match inner {
        Some(inner) if place == Some(inner.place) => {
            // A repeated key would leave values of the first object behind.
            if found.get(inner.place).is_some_and(Option::is_some) {
                return Err(Stop::Unusual);
            }
            match byte(bytes, at)? {
                b'{' => members(bytes, at, inner.names, found, &mut |at, _, _| value(bytes, at, open)),
                _ => value(bytes, at, open),
            }
        }
        _ => value(bytes, at, open),
    })?;
    if after_spaces(bytes, end) == bytes.len() { Ok(()) } else { Err(Stop::Unusual) }
}

/// Reads the object at `at`, with `end_of` to find the end of each value, and returns its end.
fn members(
    bytes: &[u8],
    at: usize,
    names: &Names,
    found: &mut Places,
    end_of: &mut dyn FnMut(usize, Option<usize>, &mut Places) -> Result<usize, Stop>,
) -> Result<usize, Stop> {
    if byte(bytes, at)? != b'{' {
        return Err(Stop::Unusual);
    }
    let mut at = after_spaces(bytes, at + 1);
    if byte(bytes, at)? == b'}' {
        return Ok(at + 1);
    }
    loop {
        if byte(bytes, at)? != b'"' {
            return Err(Stop::Unusual);
        }
        let end = string(bytes, at + 1)?;
        let key = bytes.get(at + 1..end - 1).unwrap_or_default();
        let place = names.find_spelt(key).ok_or(Stop::Unusual)?;
        at = after_colon(bytes, end)?;
        let end = end_of(at, place, found)?;
        if let Some(found) = place.and_then(|place| found.get_mut(place)) {
            *found = Some(at..end);
        }
        at = after_spaces(bytes, end);
        match byte(bytes, at)? {
            b',' => at = after_spaces(bytes, at + 1),
            b'}' => return Ok(at + 1),
            _ => return Err(Stop::Unusual),
        }
    }
}

/// The end of any value. `open` is scratch space for what is open: `}` or `]` for each level.
fn value(bytes: &[u8], mut at: usize, open: &mut Vec<u8>) -> Result<usize, Stop> {
    open.clear();
    loop {
        at = after_spaces(bytes, at);
        match byte(bytes, at)? {
            b'"' => at = string(bytes, at + 1)?,
            b'{' => {
                at = after_spaces(bytes, at + 1);
                open.push(b'}');
                if byte(bytes, at)? != b'}' {
                    at = key(bytes, at)?;
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
                    at = key(bytes, after_spaces(bytes, at))?;
                }
                break;
            } else {
                return Err(Stop::Unusual);
            }
        }
        if open.is_empty() {
            return Ok(at);
        }
    }
}

/// The end of a key and its colon.
fn key(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    match byte(bytes, at)? {
        b'"' => after_colon(bytes, string(bytes, at + 1)?),
        _ => Err(Stop::Unusual),
    }
}

fn after_colon(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    let at = after_spaces(bytes, at);
    if byte(bytes, at)? != b':' {
        return Err(Stop::Unusual);
    }
    Ok(after_spaces(bytes, at + 1))
}
