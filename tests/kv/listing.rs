//! Parts of the keys, in order.

use keva::kv::page::Listed;
use keva::kv::range::KeyRange;
use keva::kv::store::Store;
use keva::limits::{LISTED_OVERHEAD_BYTES, PAGE_BYTES_MAX};
use proptest::prelude::*;

use crate::writes::{applied, put, typed};

/// A few keys at a time.
fn counted(store: &mut Store, range: &KeyRange) -> u64 {
    loop {
        if let Some(count) = store.go_on_counting(1, range, &mut 2) {
            return count;
        }
    }
}

fn keys(store: &Store, range: &KeyRange) -> Vec<String> {
    store.range(range).map(|(key, _)| key.to_owned()).collect()
}

#[test]
fn empty_bounds_let_all_keys_in() {
    let store = applied(["a", "b", "c"].map(|key| put(key, "1")).into());
    let empty = || Some(String::new());
    let range = KeyRange { prefix: String::new(), start: empty(), end: empty(), after: empty() };
    for range in [range, KeyRange::default()] {
        assert_eq!(keys(&store, &range), ["a", "b", "c"]);
        assert!(range.is_whole());
        assert_eq!(counted(&mut store.clone(), &range), 3);
    }
}

#[test]
fn pages_are_short() {
    let keys = ["a", "b", "c", "d"];
    let store = applied(keys.map(|key| put(key, "1")).into());
    for (limit, expected, has_more) in
        [(0, 1, true), (1, 1, true), (3, 3, true), (4, 4, false), (9, 4, false)]
    {
        let page = store.page(&KeyRange::default(), limit, false);
        let found: Vec<&str> = page.iter().map(|listed| listed.key).collect();
        assert_eq!((&found[..], page.has_more), (&keys[..expected], has_more), "{limit}");
    }
    let none = store.page(&KeyRange::prefix("x"), 9, false);
    assert_eq!((none.iter().next(), none.last_key()), (None, None));
    let item = store.get("a").expect("it is there");
    for value in [None, Some(&*item.value)] {
        let page = store.page(&KeyRange::prefix("a"), 9, value.is_some());
        let listed = Listed { key: "a", revision: item.revision, size: 1, expires_at: None, value };
        assert_eq!(page.iter().collect::<Vec<_>>(), [listed]);
    }
}

/// I4, I6: values count when they are asked for; one key is listed however long it is.
#[test]
fn pages_have_a_bound_in_bytes() {
    let sizes = [
        ("a", PAGE_BYTES_MAX / 2),
        ("b", PAGE_BYTES_MAX / 2 - 3 * (LISTED_OVERHEAD_BYTES + 1)),
        ("c", 0),
        ("d", 2 * PAGE_BYTES_MAX),
        ("e", 1),
    ];
    let store = applied(sizes.map(|(key, size)| typed(key, &vec![0; size], None)).into());
    let mut range = KeyRange::default();
    for (count, has_more) in [(3, true), (1, true), (1, false)] {
        let page = store.page(&range, 9, true);
        assert_eq!((page.len(), page.has_more), (count, has_more));
        range.after = page.last_key().map(str::to_owned);
    }
    assert_eq!(store.page(&KeyRange::default(), 9, false).len(), 5);
    // Keys count, too: a page of the longest ones has as many as fit.
    let long = |n: usize| put(&format!("{n:01024}"), "");
    let count = PAGE_BYTES_MAX / (1024 + LISTED_OVERHEAD_BYTES);
    let store = applied((0..count + 1).map(long).collect());
    let page = store.page(&KeyRange::default(), usize::MAX, false);
    assert_eq!((page.len(), page.has_more), (count, true));
}

fn bound() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[abé]{0,3}")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// A range is what its definition says, and its pages one after the other are the range.
    #[test]
    fn pages_make_up_the_range(
        all in prop::collection::btree_set("[abé]{1,3}", 0..40),
        prefix in "[abé]{0,2}",
        start in bound(),
        end in bound(),
        after in bound(),
        limit in 1..5usize,
    ) {
        let store = applied(all.iter().map(|key| put(key, "1")).collect());
        let mut range = KeyRange { prefix, start, end, after };
        let within = |key: &&String| {
            key.starts_with(&range.prefix)
                && range.start.as_ref().is_none_or(|start| *key >= start)
                && range.end.as_ref().is_none_or(|end| end.is_empty() || *key < end)
                && range.after.as_ref().is_none_or(|after| *key > after)
        };
        let expected: Vec<String> = all.iter().filter(within).cloned().collect();
        prop_assert_eq!(keys(&store, &range), &expected[..]);
        prop_assert_eq!(counted(&mut store.clone(), &range), expected.len() as u64);
        let mut paged: Vec<String> = Vec::new();
        loop {
            let page = store.page(&range, limit, true);
            prop_assert!(page.len() <= limit);
            paged.extend(page.iter().map(|listed| listed.key.to_owned()));
            if !page.has_more {
                break;
            }
            range.after = paged.last().cloned();
        }
        prop_assert_eq!(paged, expected);
    }
}
