//! The events that are there from the beginning: some that can be read, or figures of many more.

use std::sync::Arc;

use anyhow::bail;

use super::condition::Span;
use super::content::{Answer, Content, Size};
use super::counted::Counted;
use super::figures::{Cells, Figures};
use super::question::Question;
use crate::events::{DAY, date};

#[derive(Debug)]
pub(super) enum Stock {
    Paged(Arc<Content>),
    Counted(Counted),
}

impl Stock {
    /// # Errors
    /// When the events cannot be made.
    pub(super) async fn new(size: Size) -> anyhow::Result<Self> {
        Ok(match size.counted_days {
            Some(days) => Self::Counted(Counted::new(size.events, days)),
            None => Self::Paged(Arc::new(Content::new(size).await?)),
        })
    }

    /// Events that can be read.
    ///
    /// # Errors
    /// When there are only figures.
    pub(super) fn content(&self) -> anyhow::Result<&Arc<Content>> {
        match self {
            Self::Paged(content) => Ok(content),
            Self::Counted(_) => bail!("these events have figures only"),
        }
    }

    /// The first instant with events.
    pub(super) fn start(&self) -> String {
        let day = match self {
            Self::Paged(content) => content.first_day(),
            Self::Counted(counted) => counted.first_day(),
        };
        format!("{}T00:00:00Z", date(day))
    }

    /// The first instant without events.
    pub(super) fn end(&self) -> i64 {
        match self {
            Self::Paged(content) => content.end(),
            Self::Counted(counted) => counted.end(),
        }
    }

    /// How many events the days of a span have.
    pub(super) fn rows(&self, happened: Span) -> u64 {
        let from = happened.from.div_euclid(DAY).saturating_mul(DAY);
        let to = happened.to.saturating_add(DAY - 1).div_euclid(DAY).saturating_mul(DAY);
        match self {
            Self::Paged(content) => content.rows(happened),
            Self::Counted(counted) => counted.rows(Span { from, to }),
        }
    }

    /// The figures that are asked for.
    ///
    /// # Errors
    /// When the events cannot tell them.
    pub(super) fn cells(&self, figures: &Figures) -> anyhow::Result<Cells> {
        match self {
            Self::Paged(content) => content.cells(figures),
            Self::Counted(counted) => counted.cells(figures),
        }
    }

    /// Answers a query for anything but figures.
    ///
    /// # Errors
    /// When there are only figures, or the query is not about whole days.
    pub(super) async fn answer(&self, sql: &str, question: Question, gzip: bool) -> anyhow::Result<Answer> {
        self.content()?.answer(sql, question, gzip).await
    }
}
