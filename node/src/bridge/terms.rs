//! What operators write of budgets, in the words of the policy, and back.
//!
//! Owns the translation only. The policy itself checks what it is told.

use selvedge_base::{Code, Refusal, Stage};
use selvedge_proto::policy::{Hardness, OnExhausted, Period, Scope, Unit};

use crate::amount::{Amount, Measure, Span};

/// What a budget counts, and over which time.
pub(super) const fn unit_and_period(amount: &Amount) -> (Unit, Period) {
    let unit = match amount.measure {
        Measure::Tokens => Unit::Tokens,
        Measure::Requests => Unit::Requests,
        Measure::MicroDollars => Unit::MicroDollars,
        Measure::Concurrent => Unit::Concurrent,
        Measure::Rate => Unit::Rate,
    };
    let period = match amount.span {
        // Rates count by the second; permits have no period, and any will do.
        None => Period::Second,
        Some(Span::Minute) => Period::Minute,
        Some(Span::Hour) => Period::Hour,
        Some(Span::Day) => Period::Day,
        Some(Span::Month) => Period::Month,
    };
    match unit {
        Unit::Concurrent => (unit, Period::Minute),
        Unit::Tokens | Unit::Requests | Unit::MicroDollars | Unit::Rate => (unit, period),
    }
}

/// What a budget counts, for people and programs.
pub(super) const fn measure(unit: Unit) -> Measure {
    match unit {
        Unit::Tokens => Measure::Tokens,
        Unit::Requests => Measure::Requests,
        Unit::MicroDollars => Measure::MicroDollars,
        Unit::Concurrent => Measure::Concurrent,
        Unit::Rate => Measure::Rate,
    }
}

/// The window of a budget that has one.
pub(super) const fn span(unit: Unit, period: Period) -> Option<Span> {
    match (unit.is_windowed(), period) {
        (false, _) | (true, Period::Second) => None,
        (true, Period::Minute) => Some(Span::Minute),
        (true, Period::Hour) => Some(Span::Hour),
        (true, Period::Day) => Some(Span::Day),
        (true, Period::Month) => Some(Span::Month),
    }
}

/// How far a node may go over.
pub(super) fn hardness(measure: Measure, elastic: Option<&str>) -> Result<Hardness, Refusal> {
    let Some(text) = elastic else { return Ok(Hardness::Hard) };
    let block = measure.limit(text).map_err(|why| wrong("elastic", why))?;
    Ok(Hardness::Elastic { block })
}

/// What happens when nothing is left.
pub(super) fn on_exhausted(text: Option<&str>) -> Result<OnExhausted, Refusal> {
    match text.map(|text| text.split_once('=').unwrap_or((text, ""))) {
        None | Some(("refuse", "")) => Ok(OnExhausted::Refuse),
        Some(("local-only", "")) => Ok(OnExhausted::LocalOnly),
        Some(("downgrade", model)) if !model.is_empty() => {
            Ok(OnExhausted::Downgrade(model.to_owned()))
        }
        Some(_) => {
            Err(wrong("on_exhausted", "write refuse, local-only or downgrade=MODEL".to_owned()))
        }
    }
}

/// Which calls count.
pub(super) fn scope(texts: &[String]) -> Result<Scope, Refusal> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    match texts.as_slice() {
        [] | ["all"] => return Ok(Scope::All),
        ["cloud"] => return Ok(Scope::Cloud),
        ["local"] => return Ok(Scope::Local),
        _ => {}
    }
    let models = texts.iter().map(|text| text.strip_prefix("model=").map(ToOwned::to_owned));
    match models.collect::<Option<Vec<String>>>() {
        Some(models) => Ok(Scope::Models(models)),
        None => {
            let why = "write all, cloud, local, or one or more of model=NAME";
            Err(wrong("scope", why.to_owned()))
        }
    }
}

/// A refusal of one field.
pub(super) fn wrong(field: &str, why: String) -> Refusal {
    Refusal::client(Stage::Validate, Code::InvalidRequest, why).param(field)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn amounts_keep_their_unit_and_window() {
        let table = [
            ("1 tokens/hour", Unit::Tokens, Period::Hour),
            ("1 requests/minute", Unit::Requests, Period::Minute),
            ("1 usd/month", Unit::MicroDollars, Period::Month),
            ("1 requests/second", Unit::Rate, Period::Second),
            ("1 concurrent", Unit::Concurrent, Period::Minute),
        ];
        for (text, unit, period) in table {
            let amount: Amount = text.parse().unwrap();
            assert_eq!(unit_and_period(&amount), (unit, period), "{text}");
            assert_eq!((measure(unit), span(unit, period)), (amount.measure, amount.span));
        }
    }

    #[test]
    fn options_become_terms() {
        let texts = |texts: &[&str]| -> Vec<String> {
            texts.iter().map(|text| (*text).to_owned()).collect()
        };
        assert_eq!(scope(&[]), Ok(Scope::All));
        assert_eq!(scope(&texts(&["cloud"])), Ok(Scope::Cloud));
        let models = scope(&texts(&["model=a", "model=b*"]));
        assert_eq!(models, Ok(Scope::Models(texts(&["a", "b*"]))));
        assert!(scope(&texts(&["cloud", "model=a"])).is_err());
        assert_eq!(on_exhausted(None), Ok(OnExhausted::Refuse));
        let small = OnExhausted::Downgrade("small".to_owned());
        assert_eq!(on_exhausted(Some("downgrade=small")), Ok(small));
        assert_eq!(on_exhausted(Some("stop")).unwrap_err().param.as_deref(), Some("on_exhausted"));
        assert_eq!(hardness(Measure::MicroDollars, None), Ok(Hardness::Hard));
        let elastic = hardness(Measure::MicroDollars, Some("0.5 usd"));
        assert_eq!(elastic, Ok(Hardness::Elastic { block: 500_000 }));
        assert!(hardness(Measure::Tokens, Some("half")).is_err());
    }
}
