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

/// What a kernel says last of all when it gives up.
const PANIC: &str = "Kernel panic - not syncing";
/// What a kernel's report of a fault begins with.
const FAULT: [&str; 3] = ["BUG: ", "Oops: ", PANIC];

/// At most `limit` bytes of what a process and its guest printed, printable: the begin of a kernel's report of its own death, which names the fault, or else the end.
pub(crate) fn last_words(text: &str, limit: usize) -> String {
    let text = text.trim();
    let report = text.contains(PANIC).then(|| FAULT.iter().filter_map(|words| text.find(words)).min()).flatten();
    report.map_or_else(|| last_bytes(text, limit), |at| first_bytes(&text[at..], limit))
}

fn first_bytes(text: &str, limit: usize) -> String {
    let mut text = printable(text);
    if text.len() > limit {
        let end = (0..=limit).rfind(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
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

    #[test]
    fn of_a_dead_kernel_the_fault_is_shown_and_of_others_the_end() {
        let registers = "R15: 0000000000000240\n".repeat(100);
        let report = format!("[ 9.9] Oops: int3: 0000 [#1]\n[ 9.9] RIP: 0010:enqueue_entity+0xca/0x500\n{registers}");
        let console = format!("{}\n{report}[ 9.9] Kernel panic - not syncing: Fatal exception\n", "é".repeat(2000));
        let shown = last_words(&console, 101);
        assert!(
            shown.starts_with("Oops: int3: 0000 [#1]\n[ 9.9] RIP: 0010:enqueue_entity+0xca/0x500\n") && shown.ends_with('…'),
            "{shown}"
        );
        assert!(shown.len() <= 101 + "…".len());
        // A fault that the kernel outlived is not why it ended.
        assert!(last_words(&format!("{report}last"), 100).ends_with("last"));
        assert_eq!(
            last_words("words\nKernel panic - not syncing: Attempted to kill init!\u{1b}[0m\n", 100),
            "Kernel panic - not syncing: Attempted to kill init![0m"
        );
    }
}
