//! Lists: filtered, sorted, in pages that are all of one revision.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::Revision;
use utoipa::{IntoParams, ToSchema};

use crate::Problem;
use crate::filter::{Filter, at, compare};

const PAGE_MAX: usize = 1000;
const PAGE: usize = 100;

/// What of a list is asked for.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only what is so: `status.phase=running and (spec.cpus>2 or name~web)`.
    pub filter: Option<String>,
    /// By which field, as in `name`; with `-` before it from the end.
    pub sort: Option<String>,
    /// At most so many: 1 to 1000, 100 without it.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Where the last page ended: its `next_page`.
    pub page: Option<String>,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// What to ask for the next one with, as `page`; `null` on the last.
    pub next_page: Option<String>,
    /// The revision that all pages are of: watch from the next.
    pub revision: u64,
}

impl ListParams {
    /// The revision to read, if this is not the first page, and how many are on those before.
    pub fn begin(&self) -> Result<(Option<Revision>, usize), Problem> {
        let Some(page) = &self.page else { return Ok((None, 0)) };
        let parts = page.split_once('.');
        let parts = parts.and_then(|(at, skip)| Some((at.parse().ok()?, skip.parse().ok()?)));
        let bad = || Problem::bad_request("page is the next_page of an answer");
        parts.map(|(at, skip)| (Some(Revision(at)), skip)).ok_or_else(bad)
    }

    /// The page of these objects, which are of `revision`.
    pub fn page<T: Serialize>(&self, all: Vec<T>, revision: Revision) -> Result<Page<T>, Problem> {
        let (_, skip) = self.begin()?;
        let limit = self.limit.unwrap_or(PAGE);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(Problem::bad_request(format!("limit is 1 to {PAGE_MAX}")));
        }
        let filter = self.filter.as_deref().map(Filter::parse).transpose();
        let filter = filter.map_err(|wrong| Problem::bad_request(format!("filter: {wrong}")))?;
        let all = if filter.is_some() || self.sort.is_some() {
            self.choose(all, filter.as_ref())?
        } else {
            all
        };
        let count = all.len();
        let items: Vec<T> = all.into_iter().skip(skip).take(limit).collect();
        let end = skip.saturating_add(items.len());
        let next_page = (end < count && !items.is_empty()).then(|| format!("{revision}.{end}"));
        Ok(Page { items, next_page, revision: revision.0 })
    }

    fn choose<T: Serialize>(
        &self,
        all: Vec<T>,
        filter: Option<&Filter>,
    ) -> Result<Vec<T>, Problem> {
        let mut chosen = Vec::new();
        for object in all {
            let value = serde_json::to_value(&object).map_err(|e| Problem::internal(&e))?;
            if filter.is_none_or(|filter| filter.matches(&value)) {
                chosen.push((object, value));
            }
        }
        if let Some(sort) = &self.sort {
            let (field, is_from_end) = match sort.strip_prefix('-') {
                Some(field) => (field, true),
                None => (sort.as_str(), false),
            };
            let order = |a: &Value, b: &Value| compare(at(a, field), at(b, field));
            chosen.sort_by(|(_, a), (_, b)| if is_from_end { order(b, a) } else { order(a, b) });
        }
        Ok(chosen.into_iter().map(|(object, _)| object).collect())
    }
}
