//! Which fields ask, and which histories are asked.

use burn::tensor::Tensor;
use crossfield_core::{
    AttentionWeights, Error, Examples, Factors, Feature, FieldId, FieldKind, Init, Lookup, Ragged,
    Schema, TableConfig, TableField, check_option, features_in,
};
use serde::{Deserialize, Serialize};

use crate::{PositionConfig, PositionEncoding, PositionKind};

/// One behaviour: the fields of a candidate, and the histories of the same fields side by side.
///
/// ```
/// use crossfield_attention::BehaviourConfig;
///
/// let behaviour = BehaviourConfig {
///     target: vec!["item".into(), "category".into()],
///     history: vec!["items".into(), "categories".into()],
///     added: vec!["gaps".into()],
///     positions: Some(50),
/// };
/// assert_eq!(behaviour.target.len(), behaviour.history.len());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BehaviourConfig {
    /// Fields of the candidate.
    pub target: Vec<String>,
    /// For each of them the sequence of its past values, of the same vocabulary. They are of the same
    /// events: as long as each other in every row.
    pub history: Vec<String>,
    /// Sequences as long as the histories, whose vectors, as long as those of an event, are added to
    /// these: how long ago each event was, say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// How many events, counted from the last, have a trained vector of their own that is added to
    /// theirs; earlier ones share the last of these. None: the order of events makes no difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<usize>,
}

/// The tables of the vectors of these fields, each once.
pub(crate) fn tables(
    factors: Factors<'_>,
    schema: &Schema,
    mut fields: Vec<FieldId>,
) -> Vec<TableConfig> {
    fields.sort_unstable();
    fields.dedup();
    factors.tables(schema, &fields).0
}

/// A behaviour under a schema.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    target: Vec<TableField>,
    history: Vec<TableField>,
    added: Vec<TableField>,
    positions: Option<usize>,
    /// Numbers of an event: those of all its fields.
    dim: usize,
}

impl Behaviour {
    /// Those of a configuration; if it names none, every sequence that shares its vocabulary with
    /// exactly one field of one value a row.
    pub(crate) fn all(
        configs: &[BehaviourConfig],
        schema: &Schema,
        factors: Factors<'_>,
    ) -> Result<Vec<Self>, Error> {
        let found;
        let configs = if configs.is_empty() {
            found = pairs(schema);
            &found
        } else {
            configs
        };
        if configs.is_empty() {
            return Err(Error::NoFields {
                component: factors.component.to_owned(),
                expected: "sequences that share their vocabulary with exactly one field that has one \
                           value a row, or those that `behaviour` names",
            });
        }
        let behaviours = configs.iter().map(|it| Self::new(it, schema, factors));
        behaviours.collect()
    }

    fn new(config: &BehaviourConfig, schema: &Schema, factors: Factors<'_>) -> Result<Self, Error> {
        let BehaviourConfig {
            target,
            history,
            added,
            positions,
        } = config;
        let component = factors.component;
        let refuse =
            |value: String, expected| check_option(component, "behaviour", value, false, expected);
        if target.is_empty() || target.len() != history.len() {
            let value = format!("target = {target:?} with history = {history:?}");
            refuse(value, "one history for each target, and at least one")?;
        }
        if positions.is_some_and(|positions| !(1..=65_536).contains(&positions)) {
            refuse(
                format!("positions = {}", positions.unwrap_or_default()),
                "1 to 65536",
            )?;
        }
        let ids = |names: &[String]| -> Result<Vec<FieldId>, Error> {
            names
                .iter()
                .map(|name| {
                    schema.field(name).ok_or_else(|| {
                        let fields = schema.fields.iter().map(|field| field.name.as_str());
                        Error::UnknownField {
                            component: component.to_owned(),
                            field: name.clone(),
                            known: fields.collect::<Vec<_>>().join(", "),
                        }
                    })
                })
                .collect()
        };
        let (target, history, added) = (ids(target)?, ids(history)?, ids(added)?);
        let named = |id: FieldId| {
            let field = &schema.fields[id];
            format!("`{}`, a {} field", field.name, field.kind.name())
        };
        for &id in history.iter().chain(&added) {
            if schema.fields[id].kind != FieldKind::Sequence {
                refuse(
                    format!("history {}", named(id)),
                    "fields of kind = \"sequence\"",
                )?;
            }
        }
        for (&target, &history) in target.iter().zip(&history) {
            if schema.fields[target].kind == FieldKind::Sequence {
                refuse(
                    format!("target {}", named(target)),
                    "a field that is no sequence",
                )?;
            }
            let [of_target, of_history] =
                [target, history].map(|id| schema.fields[id].vocabulary.as_str());
            if of_target != of_history {
                let value = format!(
                    "target `{}` of vocabulary `{of_target}` with history `{}` of `{of_history}`",
                    schema.fields[target].name, schema.fields[history].name
                );
                refuse(value, "a target and a history of the same vocabulary")?;
            }
        }
        let dim = target.len() * factors.dim;
        let lookups = |ids: Vec<FieldId>, dim: usize| {
            let lookup = |field: FieldId| TableField {
                table: Factors { dim, ..factors }.table(&schema.fields[field].vocabulary),
                field,
            };
            ids.into_iter().map(lookup).collect()
        };
        Ok(Self {
            target: lookups(target, factors.dim),
            history: lookups(history, factors.dim),
            added: lookups(added, dim),
            positions: *positions,
            dim,
        })
    }

    /// Numbers of an event.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Events of a row that has `features[f]` features in field f.
    pub(crate) fn events(&self, features: &[f64]) -> f64 {
        features[self.history[0].field]
    }

    /// Features of the target of such a row.
    pub(crate) fn asked(&self, features: &[f64]) -> f64 {
        features_in(&self.target, features)
    }

    pub(crate) fn targets(&self) -> impl Iterator<Item = FieldId> {
        self.target.iter().map(|field| field.field)
    }

    pub(crate) fn histories(&self) -> impl Iterator<Item = FieldId> {
        self.history.iter().map(|field| field.field)
    }

    /// The tables of what is added to events.
    pub(crate) fn added_tables(&self, schema: &Schema, factors: Factors<'_>) -> Vec<TableConfig> {
        let fields = self.added.iter().map(|field| field.field).collect();
        let factors = Factors {
            dim: self.dim,
            ..factors
        };
        tables(factors, schema, fields)
    }

    /// The vectors of the target's fields side by side.
    ///
    /// # Shapes
    /// - output: `[batch, dim]`
    pub(crate) fn query(&self, x: &Lookup) -> Tensor<2> {
        x.fields(&self.target).reshape([x.batch_size(), self.dim])
    }

    /// The vectors of positions, of the behaviour of that number of a component.
    pub(crate) fn positions(
        &self,
        component: &str,
        nth: usize,
        init: &Init,
    ) -> Result<Option<PositionEncoding>, Error> {
        let Some(max_positions) = self.positions else {
            return Ok(None);
        };
        let config = PositionConfig {
            kind: PositionKind::Learned,
            max_positions,
        };
        let name = format!("{component}.position.{nth}");
        config.init(&name, self.dim, init).map(Some)
    }

    /// The vectors of the events; `None` if no row of the batch has one.
    pub(crate) fn keys(&self, x: &Lookup, positions: &Option<PositionEncoding>) -> Option<Ragged> {
        let side_by_side = self.history.iter().map(|field| x.ragged(field));
        let mut events = side_by_side.collect::<Option<Vec<Ragged>>>()?;
        let segments = events[0].segments.clone();
        let first = events.remove(0).values;
        let mut values = if events.is_empty() {
            first
        } else {
            let rest = events.into_iter().map(|ragged| ragged.values);
            Tensor::cat(std::iter::once(first).chain(rest).collect(), 1)
        };
        for field in &self.added {
            values = values + x.ragged(field)?.values;
        }
        if let Some(positions) = positions {
            values = values + positions.forward(&segments, x.device());
        }
        Some(Ragged { values, segments })
    }

    /// The first field of the target in a row, and that of an event, which is the item of that number
    /// in the batch; none where the target has no value.
    pub(crate) fn pair(&self, x: &Lookup, row: usize, item: usize) -> Option<(Feature, Feature)> {
        let feature = |field: FieldId, at: usize| {
            let values = &x.batch().sparse[field];
            Feature {
                field,
                index: values.indices[at],
                value: values.weight(at),
            }
        };
        let target = self.target[0].field;
        let at = x.batch().sparse[target].range(row).next()?;
        Some((feature(target, at), feature(self.history[0].field, item)))
    }

    /// Refuses rows whose sequences differ in length.
    pub(crate) fn check_rows(
        &self,
        component: &str,
        schema: &Schema,
        rows: &Examples<'_>,
    ) -> Result<(), Error> {
        let items = |field: FieldId, row: usize| {
            let lists = rows.lists.iter().find(|lists| lists.field == field);
            // Where every row has exactly one, they do not lie in lists.
            lists.map_or(1, |lists| lists.range(row).len())
        };
        let first = self.history[0].field;
        for other in self.history[1..].iter().chain(&self.added) {
            let lengths = |row| [first, other.field].map(|field| items(field, row));
            let unequal = (0..rows.rows).find(|&row| {
                let [first, other] = lengths(row);
                first != other
            });
            if let Some(row) = unequal {
                let name = |field: FieldId| schema.fields[field].name.clone();
                return Err(Error::UnequalSequences {
                    component: component.to_owned(),
                    first: name(first),
                    second: name(other.field),
                    row: row + 1,
                    lengths: lengths(row),
                });
            }
        }
        Ok(())
    }

    /// The weights of the items of each row.
    ///
    /// # Shapes
    /// - weights: `[items, 1]`; none where no row has an item
    pub(crate) fn attention(
        &self,
        x: &Lookup,
        weights: Option<Tensor<2>>,
    ) -> Vec<AttentionWeights> {
        let weights = weights.map_or(Vec::new(), values);
        let (target, history) = (self.target[0].field, self.history[0].field);
        let sequence = &x.batch().sparse[history];
        let of_row = |row| AttentionWeights {
            row,
            target,
            history,
            weights: weights[sequence.range(row)].to_vec(),
        };
        (0..x.batch_size()).map(of_row).collect()
    }
}

/// The numbers of a tensor, row by row.
pub(crate) fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("weights are floats")
}

/// Every sequence beside the only field of one value a row that shares its vocabulary.
fn pairs(schema: &Schema) -> Vec<BehaviourConfig> {
    let sequences = schema.fields.iter();
    let sequences = sequences.filter(|field| field.kind == FieldKind::Sequence);
    let pair = |history: &crossfield_core::Field| {
        let mut targets = schema.fields.iter().filter(|field| {
            matches!(field.kind, FieldKind::Categorical | FieldKind::Hashed)
                && field.vocabulary == history.vocabulary
        });
        let target = targets.next()?;
        targets.next().is_none().then(|| BehaviourConfig {
            target: vec![target.name.clone()],
            history: vec![history.name.clone()],
            ..BehaviourConfig::default()
        })
    };
    sequences.filter_map(pair).collect()
}
