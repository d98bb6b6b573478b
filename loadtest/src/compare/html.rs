//! The result as one page: the JSON of a comparison inside a page that draws it.
//!
//! Must never refer to anything outside itself: style, script and data are all in the file, so it can be sent, kept and
//! opened without a network.

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page for a report's JSON.
pub(super) fn page(json: &str) -> String {
    // `</script>` must not appear in the data; in JSON the escaped slash means the same.
    let data = json.replace("</", "<\\/");
    // Data last: what it holds is not looked at again.
    PAGE.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT).replace("/*DATA*/", &data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_holds_the_data() {
        let page = page(r#"{"machine":"</script><b>"}"#);
        assert!(page.contains(r#"{"machine":"<\/script><b>"}"#));
        for outside in ["src=", "href=", "@import", "url(", "https://", "fetch(", "/*STYLE*/", "/*SCRIPT*/"] {
            assert!(!page.contains(outside), "{outside}");
        }
        let frame = page.matches("http://").count();
        assert_eq!(frame, page.matches("http://www.w3.org/2000/svg").count(), "a name, not an address");
    }
}
