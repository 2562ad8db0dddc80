//! Reads the text format of Prometheus, version 0.0.4, strictly: whatever breaks its rules is an error.

use std::collections::BTreeMap;

/// A page that keeps the rules.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Metrics {
    /// Type of each metric.
    kinds: BTreeMap<String, String>,
    /// Each sample, by its name with its labels as they stand there.
    samples: BTreeMap<String, f64>,
}

/// One line with a number, in parts.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
}

impl Metrics {
    /// Reads a page.
    pub fn parse(text: &str) -> Result<Metrics, String> {
        let mut page = Metrics::default();
        let mut family: Option<(String, Option<String>)> = None;
        if !text.ends_with('\n') {
            return Err("the last line has no end".into());
        }
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or(format!("no text: {line}"))?;
                check_name(name, true)?;
                if help.is_empty() || page.kinds.contains_key(name) {
                    return Err(format!("a second or an empty HELP: {line}"));
                }
                family = Some((name.to_owned(), None));
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or(format!("no type: {line}"))?;
                match &mut family {
                    Some((helped, known @ None)) if helped == name => *known = Some(kind.to_owned()),
                    _ => return Err(format!("no HELP right before it: {line}")),
                }
                check_kind(name, kind)?;
                page.kinds.insert(name.to_owned(), kind.to_owned());
            } else {
                let Some((name, Some(kind))) = &family else {
                    return Err(format!("no HELP and TYPE before it: {line}"));
                };
                page.add(line, name, kind)?;
            }
        }
        page.check_histograms()?;
        Ok(page)
    }

    fn add(&mut self, line: &str, family: &str, kind: &str) -> Result<(), String> {
        let sample = Sample::parse(line)?;
        let suffix = sample.name.strip_prefix(family).ok_or(format!("not of {family}: {line}"))?;
        let is_bucket = sample.labels.iter().any(|(label, _)| *label == "le");
        let fits = match kind {
            "histogram" => {
                (suffix == "_bucket") == is_bucket && ["_bucket", "_sum", "_count"].contains(&suffix)
            }
            _ => suffix.is_empty() && !is_bucket,
        };
        if !fits {
            return Err(format!("no sample of a {kind} named {family}: {line}"));
        }
        if kind != "gauge" && sample.value < 0.0 {
            return Err(format!("it cannot be negative: {line}"));
        }
        let name = line.rsplit_once(' ').expect("it was just read").0;
        if self.samples.insert(name.to_owned(), sample.value).is_some() {
            return Err(format!("the same sample again: {line}"));
        }
        Ok(())
    }

    /// Buckets count everything up to their end, and the last one counts everything.
    fn check_histograms(&self) -> Result<(), String> {
        for family in self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let series = self.names(&format!("{family}_count"));
            if series.is_empty() {
                return Err(format!("{family} has no count"));
            }
            for labels in series {
                let buckets = self.buckets(family, &labels);
                let count = self.sample(&format!("{family}_count{}", braces(&labels)));
                let sum = self.sample(&format!("{family}_sum{}", braces(&labels)));
                let rises = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
                let last = buckets.last().map(|(end, count)| (*end, *count));
                if !rises || sum.is_none() || last != count.map(|count| (f64::INFINITY, count)) {
                    return Err(format!("{family}{} is no histogram: {buckets:?}", braces(&labels)));
                }
            }
        }
        let bucket_count = self.samples.keys().filter(|name| name.contains("_bucket{")).count();
        let seen: usize = self
            .kinds
            .iter()
            .filter(|(_, kind)| *kind == "histogram")
            .flat_map(|(family, _)| {
                self.names(&format!("{family}_count"))
                    .into_iter()
                    .map(|labels| self.buckets(family, &labels).len())
            })
            .sum();
        if seen == bucket_count { Ok(()) } else { Err("there are buckets without a count".into()) }
    }

    /// The labels of every sample with this name.
    fn names(&self, name: &str) -> Vec<String> {
        let labels = |sample: &String| {
            let rest = sample.strip_prefix(name)?;
            match rest.strip_prefix('{') {
                Some(rest) => rest.strip_suffix('}').map(str::to_owned),
                None => rest.is_empty().then(String::new),
            }
        };
        self.samples.keys().filter_map(labels).collect()
    }

    /// The ends of a histogram's buckets, rising, and what they count.
    pub fn buckets(&self, family: &str, labels: &str) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = self
            .names(&format!("{family}_bucket"))
            .into_iter()
            .filter_map(|all| {
                let (others, end) = all.rsplit_once("le=\"")?;
                let end = end.trim_end_matches('"').replace("+Inf", "inf").parse().ok()?;
                let value = self.sample(&format!("{family}_bucket{}", braces(&all)))?;
                (others.trim_end_matches(',') == labels).then_some((end, value))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        buckets
    }

    /// The value of a sample, by its name with its labels as they stand on the page.
    pub fn sample(&self, name: &str) -> Option<f64> {
        self.samples.get(name).copied()
    }

    /// The value of a sample that must be there.
    pub fn value(&self, name: &str) -> f64 {
        self.sample(name).unwrap_or_else(|| panic!("there is no {name} on the page"))
    }

    /// The samples that only grow: counters, and counts and sums of histograms.
    pub fn growing(&self) -> impl Iterator<Item = (&str, f64)> {
        let is_growing = |name: &str| {
            let bare = name.split('{').next().unwrap_or_default();
            let of_histogram =
                ["_bucket", "_sum", "_count"].iter().filter_map(|suffix| bare.strip_suffix(suffix));
            let kind = |family: &str| self.kinds.get(family).map(String::as_str);
            kind(bare) == Some("counter")
                || of_histogram.into_iter().any(|family| kind(family) == Some("histogram"))
        };
        self.samples
            .iter()
            .filter(move |(name, _)| is_growing(name))
            .map(|(name, value)| (name.as_str(), *value))
    }
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Result<Sample<'a>, String> {
        let end = line.find(['{', ' ']).ok_or(format!("no value: {line}"))?;
        let (name, mut rest) = line.split_at(end);
        check_name(name, true)?;
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            loop {
                let (label, after) = rest.split_once("=\"").ok_or(format!("no label: {line}"))?;
                check_name(label, false)?;
                let end = end_of_text(after).ok_or(format!("the label's text does not end: {line}"))?;
                labels.push((label, &after[..end]));
                rest = &after[end + 1..];
                match rest.strip_prefix(',') {
                    Some(next) => rest = next,
                    None => break,
                }
            }
            rest = rest.strip_prefix('}').ok_or(format!("the labels do not end: {line}"))?;
        }
        let number = rest.strip_prefix(' ').ok_or(format!("no value: {line}"))?;
        let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        let value = number.parse().ok().filter(|_| is_plain).ok_or(format!("no number: {line}"))?;
        Ok(Sample { name, labels, value })
    }
}

/// Where a label's text ends: at a quotation mark without a backslash.
fn end_of_text(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at),
            b'\\' if !matches!(bytes.next(), Some((_, b'\\' | b'"' | b'n'))) => return None,
            _ => {}
        }
    }
    None
}

/// Letters, digits and underscores, no digit in front; colons are for rules of a server, not for programs.
fn check_name(name: &str, is_metric: bool) -> Result<(), String> {
    let is_legal = name
        .bytes()
        .enumerate()
        .all(|(at, byte)| byte == b'_' || byte.is_ascii_lowercase() || at > 0 && byte.is_ascii_digit());
    let is_own = !is_metric || name.starts_with("keva_");
    if is_legal && is_own && !name.is_empty() { Ok(()) } else { Err(format!("no good name: {name}")) }
}

fn check_kind(name: &str, kind: &str) -> Result<(), String> {
    let is_total = name.ends_with("_total");
    match kind {
        "counter" if is_total => Ok(()),
        "gauge" | "histogram" if !is_total => Ok(()),
        _ => Err(format!("{name} is not named like a {kind}")),
    }
}

fn braces(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}
