//! Rust source as words and signs, without comments, strings and numbers. Just enough to find paths.

/// A word, `::` or a sign of one character.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    /// As written. A raw identifier keeps its `r#`, so that it is no keyword.
    pub(crate) text: String,
    /// Its line, from 1.
    pub(crate) line: usize,
}

/// Splits source text.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source, line: 1, tokens: Vec::new() };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    /// Takes one token, string, comment or character.
    fn step(&mut self) {
        if let Some(length) = comment_length(self.rest).or_else(|| string_length(self.rest)) {
            self.skip(length);
            return;
        }
        let first = self.rest.chars().next().expect("there is a rest");
        if first == '\'' {
            self.skip(quote_length(self.rest));
        } else if is_word(first) {
            let prefix = if self.rest.starts_with("r#") { 2 } else { 0 };
            let length =
                self.rest[prefix..].find(|c| !is_word(c)).map_or(self.rest.len(), |end| prefix + end);
            self.take(length);
        } else if self.rest.starts_with("::") {
            self.take(2);
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else {
            self.take(first.len_utf8());
        }
    }

    fn take(&mut self, length: usize) {
        self.tokens.push(Token { text: self.rest[..length].to_owned(), line: self.line });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        let (skipped, rest) = self.rest.split_at(length);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the comment at the start, if there is one. Block comments nest.
fn comment_length(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    loop {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest.chars().next().map_or(0, char::len_utf8);
        }
        if depth == 0 || at == text.len() {
            return Some(at);
        }
    }
}

/// The length of the string at the start, if there is one: plain, byte, C or raw.
fn string_length(text: &str) -> Option<usize> {
    let after_kind = text.strip_prefix(['b', 'c']).unwrap_or(text);
    if let Some(raw) = after_kind.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if let Some(body) = raw[hashes..].strip_prefix('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = text.len() - body.len();
            return Some(body.find(&end).map_or(text.len(), |at| start + at + end.len()));
        }
    }
    let body = after_kind.strip_prefix('"')?;
    let start = text.len() - body.len();
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(start + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// The length of the character literal or lifetime at the start.
fn quote_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        // An escape: the character behind the backslash may be a quote itself.
        (Some((_, '\\')), Some((at, escaped))) => {
            let behind = at + escaped.len_utf8();
            text[behind..].find('\'').map_or(text.len(), |end| behind + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        // A lifetime: only the quote, its name is a harmless word.
        _ => 1,
    }
}
