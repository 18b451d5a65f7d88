//! Numbers of a configuration. Bounds and default stand in the type of the field and nowhere else:
//! the form, the tables in the documents and the messages take them from there.

use std::fmt::Display;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Error;

/// A whole number as the user wrote it, to be checked by [`Self::get`]; `DEFAULT` when it is absent
/// or null. A setting without a default is an `Option` of this.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Bounded<const LEAST: u32, const MOST: u32, const DEFAULT: u32 = LEAST>(
    #[schemars(range(min = LEAST, max = MOST))] u32,
);

impl<const LEAST: u32, const MOST: u32, const DEFAULT: u32> Bounded<LEAST, MOST, DEFAULT> {
    /// The number, checked. It is not checked while it is read, because serde does not know the path of
    /// a field within a choice such as `method`.
    ///
    /// # Errors
    /// A config error that names the field and the bounds.
    pub fn get(self, field: &str) -> Result<u32, Error> {
        within(field, self.0, LEAST, MOST)
    }

    /// The number as that many seconds.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn seconds(self, field: &str) -> Result<Duration, Error> {
        Ok(Duration::from_secs(self.get(field)?.into()))
    }

    /// The number as that many minutes.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn minutes(self, field: &str) -> Result<Duration, Error> {
        Ok(Duration::from_mins(self.get(field)?.into()))
    }

    /// The number as that many milliseconds.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn milliseconds(self, field: &str) -> Result<Duration, Error> {
        Ok(Duration::from_millis(self.get(field)?.into()))
    }
}

impl<const LEAST: u32, const MOST: u32, const DEFAULT: u32> Default for Bounded<LEAST, MOST, DEFAULT> {
    fn default() -> Self {
        const { assert!(LEAST <= DEFAULT && DEFAULT <= MOST) };
        Self(DEFAULT)
    }
}

impl<'de, const LEAST: u32, const MOST: u32, const DEFAULT: u32> Deserialize<'de> for Bounded<LEAST, MOST, DEFAULT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or_else(Self::default, Self))
    }
}

/// Checks that a number lies between two others.
///
/// # Errors
/// A config error that names the field and the bounds.
pub(super) fn within<T: PartialOrd + Display + Copy>(field: &str, value: T, least: T, most: T) -> Result<T, Error> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Error::config(format!("`{field}` must be between {least} and {most}")))
}
