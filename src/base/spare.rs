//! Header maps that have served, kept by each core for the next reply: a map of twenty lines is two and a half kilobytes
//! of heap, fetched cold each time it is made anew.

use http::HeaderMap;
use std::cell::RefCell;

/// Maps a core keeps: one comes back for each that is taken, as requests' maps replace those of their replies.
const KEPT: usize = 16;

/// Lines of the largest map kept: one odd request must not hold on to memory.
const LARGEST: usize = 64;

thread_local! {
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for `lines`.
pub fn header_map(lines: usize) -> HeaderMap {
    match MAPS.with_borrow_mut(Vec::pop) {
        Some(mut map) => {
            map.reserve(lines);
            map
        }
        None => HeaderMap::with_capacity(lines),
    }
}

/// Takes a map that nobody needs any more; what it holds is dropped.
pub fn keep(mut map: HeaderMap) {
    if map.capacity() == 0 || map.capacity() > LARGEST {
        return;
    }
    map.clear();
    MAPS.with_borrow_mut(|maps| {
        if maps.len() < KEPT {
            maps.push(map);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{ACCEPT, HeaderValue};

    #[test]
    fn a_map_comes_back_empty_and_a_huge_one_does_not() {
        let mut map = header_map(20);
        map.insert(ACCEPT, HeaderValue::from_static("a"));
        let room = map.capacity();
        keep(map);
        keep(HeaderMap::with_capacity(2 * LARGEST));
        keep(HeaderMap::new());
        let again = header_map(1);
        assert!(again.is_empty() && again.capacity() == room, "{}", again.capacity());
        assert!(header_map(3).capacity() < LARGEST, "neither the huge one nor the one without room was kept");
        for _ in 0..2 * KEPT {
            keep(HeaderMap::with_capacity(8));
        }
        assert_eq!(MAPS.with_borrow(Vec::len), KEPT);
    }
}
