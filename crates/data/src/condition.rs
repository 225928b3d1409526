//! The conditions of a cross: `bank=kookmin AND clicked=travel`.

/// `field=value`.
#[derive(Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) field: String,
    pub(crate) value: Wanted,
}

/// The value that a condition asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Wanted {
    /// `(missing)`, without quotes.
    Missing,
    Text(String),
}

const AND: &str = " AND ";

/// The conditions that ` AND ` joins; what was expected instead where they cannot be read.
pub(crate) fn parse(when: &str) -> Result<Vec<Condition>, String> {
    let mut conditions = Vec::new();
    let mut rest = Some(when);
    while let Some(text) = rest {
        let (field, _, after) = word(text, "=")?;
        let Some(after) = after.filter(|_| !field.is_empty()) else {
            return Err("field=value, joined by ` AND `".to_owned());
        };
        let (value, quoted, after) = word(after, AND)?;
        if value.is_empty() && !quoted {
            return Err(format!(
                "a value for `{field}`, (missing) for a missing one, or \"\" for an empty one"
            ));
        }
        let value = if value == "(missing)" && !quoted {
            Wanted::Missing
        } else {
            Wanted::Text(value)
        };
        conditions.push(Condition { field, value });
        rest = after;
    }
    Ok(conditions)
}

/// The word before `end` or the end of `text`, whether it was quoted, and what follows `end`.
fn word<'a>(text: &'a str, end: &str) -> Result<(String, bool, Option<&'a str>), String> {
    let Some(mut rest) = text.trim_start().strip_prefix('"') else {
        return Ok(match text.split_once(end) {
            Some((word, after)) => (word.trim().to_owned(), false, Some(after)),
            None => (text.trim().to_owned(), false, None),
        });
    };
    let mut word = String::new();
    loop {
        let Some((part, after)) = rest.split_once('"') else {
            return Err(format!("a closing quote after `{rest}`"));
        };
        word += part;
        match after.strip_prefix('"') {
            // Doubled: a quote inside.
            Some(after) => {
                word.push('"');
                rest = after;
            }
            None => {
                rest = after;
                break;
            }
        }
    }
    match rest.split_once(end) {
        Some((between, after)) if between.trim().is_empty() => Ok((word, true, Some(after))),
        None if rest.trim().is_empty() => Ok((word, true, None)),
        _ => Err(format!("`{}` after the quoted `{word}`", end.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(field: &str, value: &str) -> Condition {
        let (field, value) = (field.to_owned(), Wanted::Text(value.to_owned()));
        Condition { field, value }
    }

    #[test]
    fn conditions_are_joined_by_and() {
        let both = [text("bank", "kookmin"), text("clicked", "travel")];
        assert_eq!(parse("bank=kookmin AND clicked=travel").unwrap(), both);
        assert_eq!(
            parse(" bank = kookmin  AND  clicked = travel ").unwrap(),
            both
        );
        // A value may hold `=` and the word in other letters as it is.
        let one = [text("a", "x=y and BAND")];
        assert_eq!(parse("a=x=y and BAND").unwrap(), one);
    }

    #[test]
    fn quotes_hold_what_would_end_a_word() {
        let conditions = parse(r#""a=b"="x AND y"  AND c="say ""no""" AND d="""#).unwrap();
        let expected = [
            text("a=b", "x AND y"),
            text("c", "say \"no\""),
            text("d", ""),
        ];
        assert_eq!(conditions, expected);
    }

    #[test]
    fn a_missing_value_is_named_without_quotes() {
        let conditions = parse(r#"a=(missing) AND a="(missing)""#).unwrap();
        assert_eq!(conditions[0].value, Wanted::Missing);
        assert_eq!(conditions[1], text("a", "(missing)"));
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for (when, expected) in [
            ("", "field=value, joined by ` AND `"),
            ("bank", "field=value, joined by ` AND `"),
            ("=x", "field=value, joined by ` AND `"),
            ("a=b AND ", "field=value, joined by ` AND `"),
            (
                "a= AND b=c",
                "a value for `a`, (missing) for a missing one, or \"\" for an empty one",
            ),
            ("a=\"b", "a closing quote after `b`"),
            ("a=\"b\" c=d", "`AND` after the quoted `b`"),
        ] {
            assert_eq!(parse(when).unwrap_err(), expected, "{when}");
        }
    }
}
