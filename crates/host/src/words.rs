//! Text that others have written, made fit to be shown: guests and what serves them print what they like.

/// Terminals that show a text are not its author's to steer.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// The last `limit` bytes that are whole characters, printable. An ellipsis says that there was more.
pub fn last_bytes(text: &str, limit: usize) -> String {
    let text = printable(text);
    match text.len().checked_sub(limit) {
        None | Some(0) => text,
        Some(excess) => {
            let begin = (excess..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
            format!("…{}", &text[begin..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_bounded_at_whole_characters_and_steers_no_terminal() {
        let text = format!("{}\u{1b}[31mlast\r\n\tline", "é".repeat(5000));
        let shown = last_bytes(&text, 100);
        assert!(shown.starts_with("…é") && shown.ends_with("é[31mlast\n\tline"));
        assert!(shown.len() <= 100 + "…".len());
        assert_eq!(last_bytes("short", 100), "short");
    }
}
