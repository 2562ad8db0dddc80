//! The paths that a source file names: in `use` declarations and in the middle of code.

use crate::tokens::{Token, tokens};

/// Something that a file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Mention {
    /// A path in this crate, from its root: `["raft", "types"]`.
    Inside(Vec<String>),
    /// Any other path as written: of another crate, or of something that the file has imported or defined.
    Other(Vec<String>),
    /// A single word, with `!` when it is a macro's name.
    Word(String),
    /// A file that is not where the module's name says.
    Elsewhere,
}

/// What a file says, each with its line. `module` is the file's own path in the crate.
pub(crate) fn mentions(source: &str, module: &[String]) -> Vec<(usize, Mention)> {
    let tokens = tokens(source);
    let mut scanner = Scanner {
        tokens: &tokens,
        at: 0,
        module: module.to_vec(),
        inner: Vec::new(),
        depth: 0,
        found: Vec::new(),
    };
    while scanner.at < tokens.len() {
        scanner.step();
    }
    scanner.found
}

struct Scanner<'a> {
    tokens: &'a [Token],
    at: usize,
    /// The path of the module around the current token.
    module: Vec<String>,
    /// The brace depth inside each inline module around the current token.
    inner: Vec<usize>,
    depth: usize,
    found: Vec<(usize, Mention)>,
}

impl Scanner<'_> {
    /// The text of the token `ahead` of the current one, empty past the end.
    fn peek(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text.as_str())
    }

    fn step(&mut self) {
        match self.peek(0) {
            "{" => self.depth += 1,
            "}" => {
                if self.inner.last() == Some(&self.depth) {
                    self.inner.pop();
                    self.module.pop();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            "#" if self.peek(1) == "[" && self.peek(2) == "path" => self.found(Mention::Elsewhere),
            "mod" if self.peek(2) == "{" => {
                self.module.push(self.peek(1).to_owned());
                self.inner.push(self.depth + 1);
                // The brace is counted in its own step.
                self.at += 1;
            }
            "use" if self.peek(1) != "<" => {
                self.at += 1;
                self.use_tree(&[]);
            }
            // `::` behind `>` goes on with a type, any other begins a path.
            "::" if self.at > 0 && self.tokens[self.at - 1].text == ">" => self.at += 1,
            "::" => {
                self.at += 1;
                self.path();
                return;
            }
            text if text.starts_with(is_word) => {
                self.path();
                return;
            }
            _ => {}
        }
        self.at += 1;
    }

    /// A path or a word in the middle of code. Leaves the token behind it as the current one.
    fn path(&mut self) {
        let line_at = self.at;
        let mut path = vec![self.peek(0).to_owned()];
        while self.peek(1) == "::" && self.peek(2).starts_with(is_word) {
            path.push(self.peek(2).to_owned());
            self.at += 2;
        }
        let is_macro = self.peek(1) == "!" && self.peek(2) != "=";
        let line = self.tokens.get(line_at).map_or(0, |token| token.line);
        for word in &path[..path.len() - 1] {
            self.found.push((line, Mention::Word(word.clone())));
        }
        let last = path.last().expect("a path has a word");
        let word = if is_macro { format!("{last}!") } else { last.clone() };
        self.found.push((line, Mention::Word(word)));
        if path.len() > 1 {
            self.resolved(line, path);
        }
        self.at += 1;
    }

    /// One branch of a `use` declaration; ends at the last token of the branch.
    fn use_tree(&mut self, prefix: &[String]) {
        let mut path = prefix.to_vec();
        loop {
            let text = self.peek(0).to_owned();
            let line = self.tokens.get(self.at).map_or(0, |token| token.line);
            match text.as_str() {
                "::" => {}
                "{" => {
                    self.at += 1;
                    while !matches!(self.peek(0), "}" | "") {
                        if self.peek(0) != "," {
                            self.use_tree(&path);
                        }
                        self.at += 1;
                    }
                    return;
                }
                _ => {
                    if text != "self" || path.is_empty() {
                        path.push(text.clone());
                    }
                    if self.peek(1) != "::" {
                        self.found.push((line, Mention::Word(text)));
                        self.resolved(line, path);
                        if self.peek(1) == "as" {
                            self.at += 2;
                        }
                        return;
                    }
                }
            }
            self.at += 1;
        }
    }

    /// Files a path under the place that its first word leads to.
    fn resolved(&mut self, line: usize, path: Vec<String>) {
        let mut base = match path[0].as_str() {
            "crate" | "keva" => Vec::new(),
            "self" | "super" => self.module.clone(),
            _ => {
                self.found.push((line, Mention::Other(path)));
                return;
            }
        };
        for word in path {
            match word.as_str() {
                "crate" | "keva" | "self" => {}
                "super" => {
                    base.pop();
                }
                _ => base.push(word),
            }
        }
        self.found.push((line, Mention::Inside(base)));
    }

    fn found(&mut self, mention: Mention) {
        self.found.push((self.tokens[self.at].line, mention));
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
