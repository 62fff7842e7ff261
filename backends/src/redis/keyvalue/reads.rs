//! Pages of items. Each page is read in steps; the script leaves out what would not fit any more.

use redis::{Cmd, Value};

use super::{KeyValue, check_state, item_of};
use crate::api::keyvalue::Reads;
use crate::error::StoreError;
use crate::ids::{NamespaceId, UnixMillis};
use crate::mutation::PredicateRef;
use crate::query::{GetQuery, ItemSink, PageBudget, PageToken, ScanQuery};
use crate::redis::connect::{Fault, Link, bytes, entries, number, refusal, unexpected};
use crate::redis::script::{self, Script};
use crate::token;

/// Rows of the first step of a page, and of later ones.
const ROWS_FIRST: u32 = 128;
const ROWS_LATER: u32 = 1_024;

/// How often a read is tried when its connection turns out to be dead.
const ATTEMPTS: u32 = 2;

impl Reads for KeyValue {
    async fn get(
        &self,
        query: &GetQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        query.check()?;
        let fingerprint = token::fingerprint_of_get(query);
        let after = token::open(fingerprint, query.selection.page_token)?;
        let source = match &query.predicate {
            PredicateRef::Keys(keys) => {
                let mut keys: Vec<&[u8]> = keys.to_vec();
                keys.sort_unstable();
                keys.dedup();
                keys.retain(|key| after.is_none_or(|after| *key > after));
                Source::Keys { id: query.id, keys }
            }
            PredicateRef::All => Source::range(query.id, b"", b"", after),
            PredicateRef::Range { start, end } => Source::range(query.id, start, end, after),
        };
        let mut walk = Walk::new(query.namespace, now, PageBudget::new(&query.selection));
        walk.item_limit = query.selection.item_limit;
        let is_whole = self.walk(&mut walk, source, sink).await?;
        Ok((!is_whole).then(|| token::seal(fingerprint, &[&walk.key])))
    }

    async fn scan(
        &self,
        query: &ScanQuery<'_>,
        now: UnixMillis,
        sink: &mut impl ItemSink,
    ) -> Result<Option<PageToken>, StoreError> {
        let fingerprint = token::fingerprint_of_scan(query, token::BY_BYTES);
        let after = token::open_place(fingerprint, query.selection.page_token)?;
        let mut walk = Walk::new(query.namespace, now, PageBudget::new(&query.selection));
        walk.item_limit = query.selection.item_limit;
        let is_whole = self.walk(&mut walk, Source::Scan { after }, sink).await?;
        Ok((!is_whole).then(|| token::seal_place(fingerprint, &walk.id, &walk.key)))
    }
}

/// Where a walk finds its rows, and after what it goes on.
enum Source<'q> {
    Keys {
        id: &'q str,
        /// Those that are left, in order.
        keys: Vec<&'q [u8]>,
    },
    Range {
        id: &'q str,
        /// Bounds as the server takes them.
        low: Vec<u8>,
        high: Vec<u8>,
    },
    Scan {
        after: Option<(Vec<u8>, Vec<u8>)>,
    },
}

impl<'q> Source<'q> {
    fn range(id: &'q str, start: &[u8], end: &[u8], after: Option<&[u8]>) -> Source<'q> {
        let low = match after {
            Some(after) if after >= start => bound(b"(", after),
            _ if start.is_empty() => b"-".to_vec(),
            _ => bound(b"[", start),
        };
        let high = match end {
            b"" => b"+".to_vec(),
            end => bound(b"(", end),
        };
        Source::Range { id, low, high }
    }

    /// Goes on after what was looked at last.
    fn advance(&mut self, id: &[u8], key: &[u8]) {
        match self {
            Source::Keys { keys, .. } => keys.retain(|left| *left > key),
            Source::Range { low, .. } => *low = bound(b"(", key),
            Source::Scan { after } => *after = Some((id.to_vec(), key.to_vec())),
        }
    }

    /// Whether no row can be there any more.
    fn is_empty(&self) -> bool {
        matches!(self, Source::Keys { keys, .. } if keys.is_empty())
    }

    fn call(&self, link: &Link, walk: &Walk, rows: u32) -> Cmd {
        let script = match self {
            Source::Scan { .. } => Script::Scan,
            Source::Keys { .. } | Source::Range { .. } => Script::Read,
        };
        let mut call = script::call(link.name_of(script), walk.namespace);
        let (now, bytes) = (walk.now.0, walk.budget.bytes_left());
        match self {
            Source::Keys { id, keys } => {
                call.arg(*id).arg(now).arg(bytes).arg(rows).arg("K");
                for key in keys {
                    call.arg(*key);
                }
            }
            Source::Range { id, low, high } => {
                call.arg(*id).arg(now).arg(bytes).arg(rows).arg("L");
                call.arg(low.as_slice()).arg(high.as_slice());
            }
            Source::Scan { after } => {
                let (id, low) = match after {
                    Some((id, key)) => (id.as_slice(), bound(b"(", key)),
                    None => (&b""[..], b"-".to_vec()),
                };
                call.arg(now).arg(bytes).arg(rows).arg(id).arg(low);
            }
        }
        call
    }
}

fn bound(sign: &[u8], key: &[u8]) -> Vec<u8> {
    [sign, key].concat()
}

/// A page in the making.
struct Walk {
    namespace: NamespaceId,
    now: UnixMillis,
    budget: PageBudget,
    item_limit: u32,
    /// Item that was shown last.
    id: Vec<u8>,
    key: Vec<u8>,
    shown: u32,
}

/// How a step ended.
#[derive(PartialEq, Eq)]
enum Ended {
    /// There is no more.
    Whole,
    /// There may be more to look at.
    More,
    /// The page is full.
    Full,
}

impl Walk {
    fn new(namespace: NamespaceId, now: UnixMillis, budget: PageBudget) -> Walk {
        Walk {
            namespace,
            now,
            budget,
            item_limit: 0,
            id: Vec::new(),
            key: Vec::new(),
            shown: 0,
        }
    }

    /// Hands the items of an answer to the sink.
    fn show(
        &mut self,
        source: &mut Source<'_>,
        answer: &[Value],
        sink: &mut impl ItemSink,
    ) -> Result<Ended, Fault> {
        let is_scan = matches!(source, Source::Scan { .. });
        let head = if is_scan { 4 } else { 3 };
        let Some((head, items)) = answer.split_at_checked(head) else {
            return Err(unexpected(None));
        };
        for item in items.chunks_exact(head.len()) {
            let id = if is_scan { bytes(item.first())? } else { &[] };
            let [key, row, value] = &item[item.len() - 3..] else {
                return Err(unexpected(None));
            };
            let (key, value) = (bytes(Some(key))?, bytes(Some(value))?);
            let is_new_id = is_scan && (self.shown == 0 || self.id != id);
            if !self
                .budget
                .take(key.len(), value.len(), is_new_id.then_some(id.len()))
            {
                return Ok(Ended::Full);
            }
            if is_new_id {
                let text = std::str::from_utf8(id).map_err(|error| {
                    Fault::Refused(StoreError::Corrupt {
                        detail: format!("an id: {error}"),
                    })
                })?;
                sink.id(text);
                self.id = id.to_vec();
            }
            let (item, version) = item_of(key, bytes(Some(row))?, value)?;
            sink.item(&item, version);
            self.key.clear();
            self.key.extend_from_slice(key);
            self.shown += 1;
        }
        let is_more = number(head.get(1))? != 0;
        let last_id = if is_scan { bytes(head.get(2))? } else { &[] };
        source.advance(last_id, bytes(head.last())?);
        Ok(match is_more && !source.is_empty() {
            true => Ended::More,
            false => Ended::Whole,
        })
    }
}

impl KeyValue {
    /// Shows items until the page is full, or there are no more; whether there are no more.
    async fn walk(
        &self,
        walk: &mut Walk,
        mut source: Source<'_>,
        sink: &mut impl ItemSink,
    ) -> Result<bool, StoreError> {
        let mut rows = ROWS_FIRST;
        if walk.item_limit > 0 {
            // One more shows whether there is a next page.
            rows = rows.min(walk.item_limit.saturating_add(1));
        }
        loop {
            let answer = self.fetch(walk, &source, rows).await?;
            let answer = entries(answer.first()).map_err(Fault::into_store)?;
            check_state(walk.namespace, answer.first()).map_err(Fault::into_store)??;
            match walk.show(&mut source, answer, sink).map_err(Fault::into_store)? {
                Ended::Whole => return Ok(true),
                Ended::Full => return Ok(false),
                Ended::More => rows = ROWS_LATER,
            }
        }
    }

    /// Answer of one step; once more if the connection turned out to be dead: a read has no effect.
    async fn fetch(&self, walk: &Walk, source: &Source<'_>, rows: u32) -> Result<Vec<Value>, StoreError> {
        let make = |link: &Link| {
            let mut asked = redis::pipe();
            asked.add_command(source.call(link, walk, rows));
            asked
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            let fault = match self.links.run(make).await {
                Ok(answers) => match answers.first().and_then(refusal) {
                    None => return Ok(answers),
                    Some(fault) => fault,
                },
                Err(fault) => fault,
            };
            if !matches!(fault, Fault::Lost(_)) || attempts >= ATTEMPTS {
                return Err(fault.into_store());
            }
        }
    }
}
