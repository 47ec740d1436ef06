//! Counts answers in a stream of bytes without building values.
//!
//! A load generator needs three facts of an answer: that it is whole, whether it is an error, whether it is null. This
//! scanner keeps only a counter of bytes to skip and the beginning of a line between calls, so a value of 100 MB passes
//! through without being stored. Not here: values themselves (`ReplyDecoder` of crate resp).

/// What an answer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// Anything but an error or null.
    Value,
    /// Null: a key that is not there.
    Null,
    /// An error, with its text.
    Error(&'a [u8]),
}

/// The bytes are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAnAnswer;

/// Longest line between two answers that is still believed.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The place within a stream of answers.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Bytes of a string, with its CR LF, that are still to come.
    skip: usize,
    /// Values that are still to come before the answer is whole, besides the one that begins next.
    elements: u64,
    /// The answer is a list, so that its last element does not decide what it counts as.
    in_list: bool,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
}

/// What one line began.
enum Begun {
    Whole,
    Null,
    Error,
    String { length: usize },
    Elements(u64),
}

impl Scanner {
    /// Reads all bytes, and calls `on_answer` for each answer that ends in them.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut on_answer: impl FnMut(Answer<'_>)) -> Result<(), NotAnAnswer> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                bytes = &bytes[skipped..];
                self.skip -= skipped;
                if self.skip == 0 {
                    self.end_value(Answer::Value, &mut on_answer);
                }
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                if self.line.len() + bytes.len() > LINE_BYTES_MAX {
                    return Err(NotAnAnswer);
                }
                self.line.extend_from_slice(bytes);
                return Ok(());
            };
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.line.is_empty() {
                self.take_line(line, &mut on_answer)?;
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.take_line(&whole, &mut on_answer)?;
            }
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], on_answer: &mut impl FnMut(Answer<'_>)) -> Result<(), NotAnAnswer> {
        match begun_by(line)? {
            Begun::Whole => self.end_value(Answer::Value, on_answer),
            Begun::Null => self.end_value(Answer::Null, on_answer),
            Begun::Error => self.end_value(Answer::Error(line[1..].trim_ascii_end()), on_answer),
            Begun::String { length } => self.skip = length + 2,
            Begun::Elements(0) => self.end_value(Answer::Value, on_answer),
            Begun::Elements(count) => {
                // The list is no value of its own: its first element takes its place.
                self.elements = self.elements.checked_add(count - 1).ok_or(NotAnAnswer)?;
                self.in_list = true;
            }
        }
        Ok(())
    }

    fn end_value(&mut self, answer: Answer<'_>, on_answer: &mut impl FnMut(Answer<'_>)) {
        if self.elements == 0 {
            on_answer(if std::mem::take(&mut self.in_list) { Answer::Value } else { answer });
        } else {
            self.elements -= 1;
        }
    }
}

fn begun_by(line: &[u8]) -> Result<Begun, NotAnAnswer> {
    let Some((kind, rest)) = line.split_first() else { return Err(NotAnAnswer) };
    match kind {
        b'+' | b':' | b',' | b'#' | b'(' => Ok(Begun::Whole),
        b'-' => Ok(Begun::Error),
        b'_' => Ok(Begun::Null),
        b'$' | b'=' | b'*' | b'~' | b'%' => {
            let digits = rest.trim_ascii_end();
            if digits == b"-1" {
                return Ok(Begun::Null);
            }
            let number = digits_to_number(digits).ok_or(NotAnAnswer)?;
            Ok(match kind {
                b'$' | b'=' => Begun::String { length: number as usize },
                b'%' => Begun::Elements(number * 2),
                _ => Begun::Elements(number),
            })
        }
        _ => Err(NotAnAnswer),
    }
}

/// Up to twelve decimal digits.
fn digits_to_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 12 {
        return None;
    }
    let mut number = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"+OK\r\n$5\r\na\r\nbc\r\n$-1\r\n:12\r\n-ERR no\r\n_\r\n*2\r\n$1\r\nx\r\n*2\r\n:1\r\n$-1\r\n$0\r\n\r\n*0\r\n%1\r\n+a\r\n#t\r\n";
    const ANSWERS: &[&str] = &["value", "value", "null", "value", "ERR no", "null", "value", "value", "value", "value"];

    fn scan(pieces: &[&[u8]]) -> Vec<String> {
        let mut scanner = Scanner::default();
        let mut found = Vec::new();
        for piece in pieces {
            let take = |answer: Answer<'_>| {
                found.push(match answer {
                    Answer::Value => "value".to_owned(),
                    Answer::Null => "null".to_owned(),
                    Answer::Error(text) => String::from_utf8_lossy(text).into_owned(),
                });
            };
            scanner.scan(piece, take).expect("answers");
        }
        found
    }

    #[test]
    fn answers_are_counted_however_they_are_cut() {
        let whole = scan(&[STREAM]);
        assert_eq!(whole, ANSWERS);
        for cut in 0..STREAM.len() {
            assert_eq!(scan(&[&STREAM[..cut], &STREAM[cut..]]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(scan(&bytes), whole);
    }

    #[test]
    fn bytes_that_are_no_answer_are_seen() {
        for text in [&b"HTTP/1.1 400\r\n"[..], b"$x\r\n", b"$\r\n", b"*-2\r\n", b"\r\n"] {
            assert_eq!(Scanner::default().scan(text, |_| ()), Err(NotAnAnswer), "{text:?}");
        }
    }
}
