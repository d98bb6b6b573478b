//! The built-in embedding: a text's words as a direction, with no model and no network.
//!
//! What it is: hashed words and letter triples for a graded likeness, plus hashed *signatures* of what must not differ.
//! A signature points somewhere else entirely as soon as anything in it changes, however long the text, so that at a
//! threshold of 0.95 two questions are one only if their numbers, negations, operators and content words are the same
//! in the same order. What may differ: case (but not of words all in capitals, `US` is not `us`), punctuation,
//! articles and courtesies (`please`, `could you tell me`), plurals, spacing.
//!
//! What it cannot do: it knows no synonyms (`car` and `automobile` are two questions), no paraphrase, no other language,
//! no typing mistake; in scripts without spaces a run of letters is one word. It errs towards a miss. Below 0.9 it
//! starts to take different questions for one: use an embeddings model for that.

use super::semantic::Vector;

/// Graded likeness: words and letter triples.
const LIKENESS: usize = 192;
/// Content words in order, in [`GROUPS`] signatures.
const GROUPS: usize = 4;
const GROUP: usize = 32;
/// Numbers, negations, operators in order.
const STRICT: usize = 64;

/// What each part weighs in the cosine; together 1. One changed group costs at least ⅛ · ½.
const LIKENESS_WEIGHT: f32 = 0.25;
const GROUPS_WEIGHT: f32 = 0.5;
const STRICT_WEIGHT: f32 = 0.25;

/// Words that change no question.
const EMPTY: [&str; 14] =
    ["a", "an", "the", "please", "kindly", "thanks", "thank", "hello", "hi", "hey", "just", "ok", "okay", "um"];

/// Courtesies a question may begin with, after [`EMPTY`] words are gone.
const OPENINGS: [&[&str]; 7] = [
    &["could", "you"],
    &["can", "you"],
    &["would", "you"],
    &["will", "you"],
    &["tell", "me"],
    &["i", "want", "to", "know"],
    &["i", "would", "like", "to", "know"],
];

const NEGATIONS: [&str; 14] = [
    "not", "no", "never", "none", "neither", "nor", "without", "cannot", "nothing", "nobody", "except", "unless",
    "hardly", "nowhere",
];

/// Bytes of text at most: about a millisecond's work. A longer one is no question of the kind that comes again.
const LONGEST: usize = 32 << 10;

/// The direction of `text`; `None` when there is no word in it, or when it is too long.
pub fn embed(text: &str) -> Option<Vector> {
    if text.len() > LONGEST {
        return None;
    }
    let words = words(text);
    if words.is_empty() {
        return None;
    }
    let mut raw = vec![0.0; LIKENESS];
    for word in &words {
        add(&mut raw, hash(word), 1.0);
        let letters: Vec<char> = format!("^{word}$").chars().take(64).collect();
        for triple in letters.windows(3) {
            add(&mut raw, hash(triple), 0.3);
        }
    }
    let mut parts = scaled(raw, LIKENESS_WEIGHT);

    let mut groups = vec![blake3::Hasher::new(); GROUPS];
    let mut before = "";
    for word in words.iter().map(String::as_str).chain([""]) {
        // A pair and not a word: what stands where counts ("dollars to euros").
        let pair = format!("{before}\0{word}");
        let group = &mut groups[hash(&pair) as usize % GROUPS];
        group.update(&(pair.len() as u64).to_le_bytes()).update(pair.as_bytes());
        before = word;
    }
    for group in &groups {
        parts.extend(signature(group, GROUP, GROUPS_WEIGHT / GROUPS as f32));
    }

    let mut strict = blake3::Hasher::new();
    for word in words.iter().filter(|word| strict_word(word)) {
        strict.update(&(word.len() as u64).to_le_bytes()).update(word.as_bytes());
    }
    parts.extend(signature(&strict, STRICT, STRICT_WEIGHT));
    Vector::new(parts)
}

/// Words, numbers and operators, in order, brought to one form.
fn words(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let mut letters = text.chars().peekable();
    let mut last = ' ';
    while let Some(letter) = letters.next() {
        let next = letters.peek().copied().unwrap_or(' ');
        let inside = match letter {
            // 1.5, 1,000, 12:30; it's, don’t
            '.' | ',' | ':' => last.is_ascii_digit() && next.is_ascii_digit(),
            '\'' | '’' => last.is_alphabetic() && next.is_alphabetic(),
            '-' => last.is_alphanumeric() && next.is_alphanumeric(),
            // A leading point: .5 is not 5.
            _ => letter.is_alphanumeric() || letter == '_' || !letter.is_ascii() && !letter.is_whitespace(),
        };
        if inside {
            word.push(if letter == '’' { '\'' } else { letter });
        } else {
            finish(&mut word, &mut all);
            let point = letter == '.' && next.is_ascii_digit();
            // !x, x != y, 5!
            let bang = letter == '!' && (next.is_alphanumeric() || next == '=' || last.is_numeric() || last == ')');
            let minus = letter == '-' && next.is_alphanumeric();
            if point || bang || minus || "+*/<>=%$#&|^~@\\()[]{}".contains(letter) {
                all.push(letter.to_string());
            }
        }
        last = letter;
    }
    finish(&mut word, &mut all);
    while let Some(opening) = OPENINGS.iter().find(|opening| starts(&all, opening) && all.len() > opening.len()) {
        all.drain(..opening.len());
    }
    all
}

fn starts(words: &[String], opening: &[&str]) -> bool {
    words.len() >= opening.len() && words.iter().zip(opening).all(|(word, one)| word == one)
}

fn finish(word: &mut String, all: &mut Vec<String>) {
    if word.is_empty() {
        return;
    }
    let raw = std::mem::take(word);
    let capitals = raw.chars().filter(|c| c.is_alphabetic()).count() > 1 && !raw.chars().any(char::is_lowercase);
    let mut one = if capitals { raw } else { raw.to_lowercase() };
    if let Some(verb) = one.strip_suffix("n't") {
        let verb = verb.to_owned();
        all.extend([verb, "not".to_owned()]);
        return;
    }
    if let Some(owner) = one.strip_suffix("'s") {
        one.truncate(owner.len());
    }
    if one.len() > 4 && one.ends_with('s') && !one.ends_with("ss") && one.bytes().all(|b| b.is_ascii_lowercase()) {
        one.pop();
    }
    if !EMPTY.contains(&one.as_str()) {
        all.push(one);
    }
}

fn strict_word(word: &str) -> bool {
    NEGATIONS.contains(&word) || word.chars().any(char::is_numeric) || !word.chars().any(char::is_alphabetic)
}

/// The same in every process of one build; vectors never leave the process.
fn hash(what: impl std::hash::Hash) -> u64 {
    ahash::RandomState::with_seeds(0x6d, 0x65, 0x72, 0x69).hash_one(what)
}

/// The hash says where and with which sign.
fn add(raw: &mut [f32], hash: u64, weight: f32) {
    let index = (hash >> 1) as usize % raw.len();
    raw[index] += if hash & 1 == 0 { weight } else { -weight };
}

/// Scales so that its square sum is `weight`.
fn scaled(mut raw: Vec<f32>, weight: f32) -> Vec<f32> {
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    for x in &mut raw {
        *x *= weight.sqrt() / length;
    }
    raw
}

/// `size` signs drawn from the hash: two different hashes stand nearly at right angles.
fn signature(hasher: &blake3::Hasher, size: usize, weight: f32) -> impl Iterator<Item = f32> {
    let mut signs = [0; STRICT / 8];
    hasher.finalize_xof().fill(&mut signs);
    let each = (weight / size as f32).sqrt();
    (0..size).map(move |n| if signs[n / 8] >> (n % 8) & 1 == 0 { each } else { -each })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn likeness(a: &str, b: &str) -> f32 {
        embed(a).unwrap().cosine(&embed(b).unwrap())
    }

    #[test]
    fn the_same_question_in_other_clothes_is_one() {
        for (a, b) in [
            ("What is the capital of France?", "what is the capital of france"),
            ("What is the capital of France?", "Please, could you tell me: what is the capital of France"),
            ("How do I sort a list in Python?", "how do I sort lists in Python"),
            ("It's 5 o'clock, isn't it?", "it's 5 o’clock,  isn’t it"),
            ("Explain the US tax system.", "Explain US tax systems, please."),
        ] {
            assert!(likeness(a, b) >= 0.95, "{a} | {b}: {}", likeness(a, b));
        }
    }

    #[test]
    fn a_number_a_negation_an_order_or_a_word_apart_are_two_however_long_the_question() {
        let pairs = [
            ("What is 17 times 23?", "What is 17 times 24?"),
            ("What is 2.5 percent of 80?", "What is 25 percent of 80?"),
            ("Is -5 larger than 3?", "Is 5 larger than 3?"),
            ("Is 3 - 5 negative?", "Is 3 + 5 negative?"),
            ("Is x > 5 true?", "Is x < 5 true?"),
            ("Round 0.5 up", "Round .5 up"),
            ("Should I restart the server?", "Should I not restart the server?"),
            ("Does it scale?", "Doesn't it scale?"),
            ("Ship with batteries", "Ship without batteries"),
            ("Convert dollars to euros", "Convert euros to dollars"),
            ("flights from Paris to Rome", "flights from Rome to Paris"),
            ("What is the capital of France?", "What is the capital of Peru?"),
            ("who is the president", "who was the president"),
            ("population of the US", "population of us"),
            ("日本の首都は？", "中国の首都は？"),
            ("What is 5!", "What is 5?"),
            ("(2 + 3) * 4", "2 + (3 * 4)"),
        ];
        let long = "We run a shop with many customers and many products in several countries, and our accounting \
                    department would like to have a clear explanation of how value added tax is computed. ";
        for (a, b) in pairs {
            for before in [String::new(), long.repeat(8)] {
                let likeness = likeness(&format!("{before}{a}"), &format!("{before}{b}"));
                assert!(likeness < 0.95, "{a} | {b} after {} bytes: {likeness}", before.len());
            }
        }
    }

    #[test]
    fn one_word_changed_is_always_below_the_threshold() {
        let mut worst = 0.0f32;
        for n in 0..3_000 {
            let text = |word: &str| format!("compare item alpha beta {word} gamma delta epsilon zeta eta theta number");
            let pair = (text(&format!("word{}x", n * 2)), text(&format!("word{}x", n * 2 + 1)));
            let letters = (pair.0.replace(char::is_numeric, "q"), text(&letter(n)));
            worst = worst.max(likeness(&pair.0, &pair.1)).max(likeness(&letters.0, &letters.1));
        }
        assert!(worst < 0.95, "{worst}");
    }

    #[test]
    fn two_words_changing_places_is_always_below_the_threshold() {
        let mut worst = 0.0f32;
        for n in 0..1_000 {
            let (a, b) = (format!("a{}", letter(n)), format!("b{}", letter(n + 1)));
            worst = worst.max(likeness(&format!("convert {a} to {b} today"), &format!("convert {b} to {a} today")));
        }
        assert!(worst < 0.95, "{worst}");
    }

    #[test]
    fn a_number_or_a_negation_costs_more_than_a_word_may() {
        let mut worst = 0.0f32;
        for n in 0..1_000 {
            let text = |number: usize| format!("how many of the {number} items are left in stock today");
            worst = worst.max(likeness(&text(n), &text(n + 1)));
            let word = letter(n);
            worst = worst.max(likeness(&format!("is {word} ready now"), &format!("is {word} not ready now")));
        }
        assert!(worst < 0.85, "{worst}");
    }

    fn letter(n: usize) -> String {
        format!("{n:b}").replace('0', "o").replace('1', "l")
    }

    #[test]
    fn nothing_to_compare_is_no_vector_and_strange_text_is_harmless() {
        for text in ["", "  \n", "?!…", "the a an"] {
            assert_eq!(embed(text).is_none(), words(text).is_empty(), "{text}");
        }
        assert!(embed("").is_none());
        assert!(embed("\u{0}\u{202e}🦀🦀 ﷽").is_some());
        assert!(embed(&"x".repeat(LONGEST)).is_some() && embed(&"x ".repeat(LONGEST)).is_none());
    }
}
