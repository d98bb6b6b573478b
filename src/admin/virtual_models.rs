//! `/api/virtual-models`: names of ours and where they lead. Those of the settings are shown first and stay as they are.

use super::Admin;
use super::asked::{Answer, Asked, refused, tag, wrong};
use super::fields::Fields;
use crate::base::{Error, ErrorKind, VirtualModelId};
use crate::config::{RouteSpec, TargetSpec};
use crate::store::rows::VirtualModelRow;
use crate::store::validate;
use serde_json::{Map, Value, json};

impl Admin {
    pub(super) async fn virtual_models(&self) -> Result<Answer, Error> {
        let stored = self.store.virtual_models().await.map_err(|e| refused(&e))?;
        let mut shown: Vec<Value> = self.routes.iter().map(given).collect();
        shown.extend(stored.iter().map(stored_shown));
        Ok(Answer::ok(&json!({ "virtual_models": shown })))
    }

    pub(super) async fn virtual_model(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        Ok(one(&self.stored_model(asked.id("virtual model")?).await?))
    }

    pub(super) async fn add_virtual_model(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let spec = spec(asked.fields)?;
        let id = self.store.add_virtual_model(&spec).await.map_err(|e| refused(&e))?;
        let row = self.stored_model(id).await?;
        let shown = stored_shown(&row);
        Ok(Answer::created(&shown).tagged(&model_tag(&row)).noting("virtual_model.create", id, settings(&row)))
    }

    pub(super) async fn replace_virtual_model(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let id = asked.id("virtual model")?;
        let _one_at_a_time = self.writes.lock().await;
        asked.unchanged(&model_tag(&self.stored_model(id).await?))?;
        let spec = spec(asked.fields)?;
        self.store.replace_virtual_model(id, &spec).await.map_err(|e| refused(&e))?;
        let row = self.stored_model(id).await?;
        Ok(one(&row).noting("virtual_model.change", id, settings(&row)))
    }

    pub(super) async fn remove_virtual_model(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let id = asked.id("virtual model")?;
        let _one_at_a_time = self.writes.lock().await;
        let row = self.stored_model(id).await?;
        asked.unchanged(&model_tag(&row))?;
        self.store.remove_virtual_model(id).await.map_err(|e| refused(&e))?;
        Ok(Answer::gone().noting("virtual_model.remove", id, json!({ "name": &*row.model.name })))
    }

    /// Without a word which way: the other way.
    pub(super) async fn toggle_virtual_model(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let id = asked.id("virtual model")?;
        let mut fields = asked.fields;
        let wanted: Option<bool> = fields.maybe("enabled")?;
        fields.done()?;
        let _one_at_a_time = self.writes.lock().await;
        let enabled = wanted.unwrap_or(!self.stored_model(id).await?.enabled);
        self.store.enable_virtual_model(id, enabled).await.map_err(|e| refused(&e))?;
        let row = self.stored_model(id).await?;
        Ok(one(&row).noting("virtual_model.toggle", id, json!({ "enabled": enabled })))
    }

    pub(super) async fn reorder_virtual_models(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let mut fields = asked.fields;
        let names: Vec<String> = fields.needed("ids")?;
        fields.done()?;
        if names.len() > 10_000 {
            return Err(wrong("ids", "must be at most 10000 ids"));
        }
        let read = names.iter().map(|name| name.parse::<VirtualModelId>()).collect::<Result<Vec<_>, _>>();
        let ids = read.map_err(|_| wrong("ids", "must be ids of virtual models, like vm_0123456789abcdef"))?;
        let mut once = ids.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() != ids.len() {
            return Err(wrong("ids", "must name each virtual model once"));
        }
        self.store.reorder_virtual_models(ids).await.map_err(|e| refused(&e))?;
        Ok(self.virtual_models().await?.noting("virtual_model.reorder", "all", json!({ "ids": names })))
    }

    async fn stored_model(&self, id: VirtualModelId) -> Result<VirtualModelRow, Error> {
        let all = self.store.virtual_models().await.map_err(|e| refused(&e))?;
        let found = all.into_iter().find(|row| row.model.id == id);
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no virtual model {id}")))
    }
}

fn spec(mut fields: Fields) -> Result<RouteSpec, Error> {
    let name = fields.needed("name")?;
    let strategy = fields.maybe("strategy")?.unwrap_or_else(|| "failover".to_owned());
    let sticky = fields.maybe("sticky")?;
    let targets: Vec<Map<String, Value>> = fields.needed("targets")?;
    fields.done()?;
    let targets = targets.into_iter().enumerate().map(|(n, map)| {
        target(map.into()).map_err(|error| {
            let field = error.param.clone().unwrap_or_default();
            wrong(format!("targets[{n}].{field}"), error.message)
        })
    });
    Ok(RouteSpec { name, strategy, sticky, targets: targets.collect::<Result<_, _>>()? })
}

fn target(mut fields: Fields) -> Result<TargetSpec, Error> {
    let target = TargetSpec {
        model: fields.needed("model")?,
        account: fields.maybe("account")?,
        weight: fields.maybe("weight")?,
    };
    fields.done()?;
    Ok(target)
}

fn one(row: &VirtualModelRow) -> Answer {
    Answer::ok(&stored_shown(row)).tagged(&model_tag(row))
}

fn stored_shown(row: &VirtualModelRow) -> Value {
    let mut shown = settings(row);
    shown["id"] = row.model.id.to_string().into();
    shown["position"] = row.position.into();
    shown["source"] = "store".into();
    shown
}

fn settings(row: &VirtualModelRow) -> Value {
    let targets: Vec<_> = row.model.targets.iter().map(|target| target_shown(&validate::target_spec(target))).collect();
    json!({
        "name": &*row.model.name,
        "strategy": row.model.strategy.name(),
        "sticky": row.model.sticky,
        "enabled": row.enabled,
        "targets": targets,
    })
}

fn given(route: &RouteSpec) -> Value {
    let targets: Vec<_> = route.targets.iter().map(target_shown).collect();
    json!({
        "id": null,
        "name": route.name,
        "strategy": route.strategy,
        "sticky": route.sticky.unwrap_or(1),
        "enabled": true,
        "position": null,
        "source": "settings",
        "targets": targets,
    })
}

fn target_shown(target: &TargetSpec) -> Value {
    json!({ "model": target.model, "account": target.account, "weight": target.weight.unwrap_or(1) })
}

fn model_tag(row: &VirtualModelRow) -> String {
    tag(&settings(row))
}
