//! What the meter passes and counts, stream by stream, and that no way of cutting a stream changes either.

use super::*;
use proptest::prelude::*;

const CHAT: &str = concat!(
    ": ping\n\n",
    "data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{\"}}],\"usage\":null}\n\n",
    "data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"data: [DONE]\"}}],\"usage\": null}\n\n",
    "data: {\"id\":\"1\",\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":34,\"prompt_tokens_details\":{\"cached_tokens\":5}}}\n\n",
    "data: [DONE]\n\n",
);

const RESPONSES: &str = concat!(
    "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n",
    "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[],\"usage\":{\"input_tokens\":3,",
    "\"input_tokens_details\":{\"cached_tokens\":1},\"output_tokens\":9,\"output_tokens_details\":{\"reasoning_tokens\":4}}},\"sequence_number\":3}\n\n",
);

const MESSAGES: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":10,\"cache_creation_input_tokens\":20,\"cache_read_input_tokens\":30,\"output_tokens\":1}}}\n\n",
    "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"message_stop\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":15}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

const GEMINI: &str = concat!(
    "data: {\"candidates\":[{}],\"usageMetadata\":{\"promptTokenCount\":4}}\r\n\r\n",
    "data: {\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":6,\"thoughtsTokenCount\":2}}\r\n\r\n",
);

const GEMINI_ARRAY: &str = concat!(
    "[{\"candidates\":[{\"content\":\"]}\\\"\"}],\"usageMetadata\":{\"promptTokenCount\":4}}\n,\r\n",
    "{\"candidates\":[{\"finishReason\": \"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":6,\"thoughtsTokenCount\":2}}\n]",
);

type Seen = (String, Option<(u64, u64)>, bool, u64);

fn run(endpoint: Endpoint, drop: bool, parts: &[&[u8]]) -> Seen {
    let mut meter = StreamMeter::new(endpoint, drop);
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(&meter.feed(Bytes::copy_from_slice(part)));
    }
    out.extend_from_slice(&meter.finish());
    let usage = meter.usage().map(|u| (u.prompt, u.completion));
    let events = if meter.told_all() { 0 } else { meter.events() };
    (String::from_utf8_lossy(&out).into_owned(), usage, meter.saw_end(), events)
}

fn whole(endpoint: Endpoint, drop: bool, text: &str) -> Seen {
    run(endpoint, drop, &[text.as_bytes()])
}

#[test]
fn each_dialect_is_counted() {
    assert_eq!(whole(Endpoint::Chat, false, CHAT), (CHAT.into(), Some((12, 34)), true, 0));
    assert_eq!(whole(Endpoint::Responses, true, RESPONSES), (RESPONSES.into(), Some((3, 9)), true, 0));
    assert_eq!(whole(Endpoint::Messages, true, MESSAGES), (MESSAGES.into(), Some((60, 15)), true, 0));
    assert_eq!(whole(Endpoint::StreamGenerate, true, GEMINI), (GEMINI.into(), Some((4, 8)), true, 0));
    assert_eq!(whole(Endpoint::StreamGenerate, true, GEMINI_ARRAY), (GEMINI_ARRAY.into(), Some((4, 8)), true, 0));
    // Until it has told all, its events count.
    let but_last = |text: &'static str| &text[..text.trim_end().rfind("\n\n").unwrap() + 2];
    assert_eq!(whole(Endpoint::Chat, false, but_last(CHAT)).3, 4);
    assert_eq!(whole(Endpoint::Responses, false, but_last(RESPONSES)).3, 2);
    assert_eq!(whole(Endpoint::Messages, false, but_last(MESSAGES)).3, 4);
    let all_but_end = GEMINI.find("data: {\"candidates\":[{\"fin").unwrap();
    assert_eq!(whole(Endpoint::StreamGenerate, false, &GEMINI[..all_but_end]).3, 1);
    assert_eq!(whole(Endpoint::StreamGenerate, false, GEMINI_ARRAY.split_once(",\r\n").unwrap().0).3, 1);
    for (endpoint, text) in [(Endpoint::Chat, CHAT), (Endpoint::Messages, MESSAGES), (Endpoint::Responses, RESPONSES)] {
        let cut = &text[..text.len() * 2 / 3];
        assert!(!whole(endpoint, false, cut).2, "{endpoint:?}: the end was only spoken of");
    }
}

#[test]
fn only_the_usage_chunk_is_dropped() {
    let usage_line = CHAT.lines().find(|l| l.contains("prompt_tokens")).unwrap();
    let want = CHAT.replace(&format!("{usage_line}\n\n"), "");
    assert_eq!(whole(Endpoint::Chat, true, CHAT), (want.clone(), Some((12, 34)), true, 0));
    let (crlf, want) = (CHAT.replace('\n', "\r\n"), want.replace('\n', "\r\n"));
    assert_eq!(whole(Endpoint::Chat, true, &crlf).0, want);
    let both = "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";
    assert_eq!(whole(Endpoint::Chat, true, both), (both.into(), Some((1, 2)), false, 1));
    let groq = "data: {\"choices\":[{}],\"x_groq\":{\"id\":\"r\",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}}\n\n";
    assert_eq!(whole(Endpoint::Chat, true, groq), (groq.into(), Some((1, 2)), false, 1));
    let filters = "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n";
    assert_eq!(whole(Endpoint::Chat, true, filters).0, filters);
    let first = "id: 7\nevent: x\ndata: {\"choices\":[ ],\"usage\":{\"prompt_tokens\":1}}\n\ndata: a\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":2}}";
    assert_eq!(whole(Endpoint::Chat, true, first).0, "data: a\n\n");
}

#[test]
fn events_leave_when_they_are_whole_and_not_before() {
    let mut meter = StreamMeter::new(Endpoint::Chat, false);
    let data = Bytes::from_static(b"data: 1\n\ndata: 2\n\n");
    assert_eq!(meter.feed(data.clone()).as_ptr(), data.as_ptr(), "a read that ends with an event is not copied");
    assert_eq!(meter.feed(Bytes::from_static(b"data: 3\n\ndata:")), "data: 3\n\n");
    assert_eq!(meter.feed(Bytes::from_static(b" 4\n")), "");
    assert_eq!(meter.feed(Bytes::from_static(b"\n")), "data: 4\n\n");
    assert_eq!(meter.feed(Bytes::from_static(b"data: 5\r\n\r")), "");
    assert_eq!(meter.feed(Bytes::from_static(b"\n")), "data: 5\r\n\r\n");
    assert_eq!(meter.feed(Bytes::from_static(b"data: 6\r\r")), "data: 6\r\r");
    assert_eq!(meter.feed(Bytes::from_static(b"data: 7")), "");
    assert_eq!(meter.finish(), "data: 7");
}

#[test]
fn an_overlong_event_passes_and_the_next_one_is_read_again() {
    let long = "x".repeat(MAX_HELD);
    let text = format!("data: {long}\r\n\r\n{CHAT}");
    for size in [1000, 65_536, 100_003] {
        let parts: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let (out, usage, end, _) = run(Endpoint::Chat, false, &parts);
        assert!(out == text && usage == Some((12, 34)) && end, "{size}");
    }
    let mut meter = StreamMeter::new(Endpoint::Chat, false);
    let _ = meter.feed(Bytes::from(format!("data: {long}")));
    assert_eq!(meter.feed(Bytes::from_static(b"more")), "more", "nothing more is held of it");
    assert_eq!(meter.held.len(), 0);
    let answer = RESPONSES.replace("\"output\":[]", &format!("\"output\":[\"{long}\"]"));
    let parts: Vec<&[u8]> = answer.as_bytes().chunks(60_000).collect();
    let (out, usage, end, _) = run(Endpoint::Responses, false, &parts);
    assert!(out == answer && usage == Some((3, 9)) && end);
}

#[test]
fn the_estimate_grows_with_what_was_relayed() {
    let mut meter = StreamMeter::new(Endpoint::Chat, false);
    assert_eq!((meter.content_estimate(), meter.usage()), (0, None));
    for _ in 0..10 {
        let _ = meter.feed(Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n"));
    }
    assert_eq!(meter.content_estimate(), 10);
    let _ = meter.feed(Bytes::from(format!("data: {}\n\n", "long ".repeat(1000))));
    assert!((500..2000).contains(&meter.content_estimate()));
}

fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}",
        "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":3}}",
        "data: {\"usage\":null}",
        "data: [DONE]",
        "event: message_stop",
        "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":7}}",
        "data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}",
        "data: {\"usageMetadata\":{\"promptTokenCount\":4}}",
        "[{\"usageMetadata\":{\"promptTokenCount\":4}},",
        ": ping",
        "id: 1",
        "\n",
        "\n\n",
        "\r\n\r\n",
        "\n\n",
        "\r\r",
        "\r\n",
        "\r",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn how_it_is_cut_changes_nothing(
        pieces in prop::collection::vec(piece(), 0..14),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        known in prop::sample::select(vec![None, Some(CHAT), Some(MESSAGES), Some(GEMINI), Some(RESPONSES), Some(GEMINI_ARRAY)]),
        drop: bool,
    ) {
        let text = known.map_or_else(|| pieces.concat(), str::to_owned);
        let bytes = text.as_bytes();
        let mut places: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
        places.push(0);
        places.push(bytes.len());
        places.sort_unstable();
        let parts: Vec<&[u8]> = places.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        for endpoint in [Endpoint::Chat, Endpoint::Responses, Endpoint::Messages, Endpoint::StreamGenerate] {
            let (once, cut) = (whole(endpoint, drop, &text), run(endpoint, drop, &parts));
            prop_assert_eq!(&once, &cut);
            if !drop {
                prop_assert_eq!(&once.0, &text);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        for endpoint in [Endpoint::Chat, Endpoint::Responses, Endpoint::Messages, Endpoint::StreamGenerate] {
            let _ = run(endpoint, true, &parts);
        }
    }
}

#[test]
fn byte_by_byte_is_the_same() {
    for (endpoint, text) in [
        (Endpoint::Chat, CHAT),
        (Endpoint::Responses, RESPONSES),
        (Endpoint::Messages, MESSAGES),
        (Endpoint::StreamGenerate, GEMINI),
        (Endpoint::StreamGenerate, GEMINI_ARRAY),
    ] {
        let parts: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(run(endpoint, true, &parts), whole(endpoint, true, text));
    }
}
