//! `warmup`: the plans of routes that are warmed up.

use crate::{
    api,
    args::{WarmupArgs, WarmupCommand},
    exit::{Exit, Failure},
    output::{Output, Table, grouped, safe},
    reach::Reach,
};
use domain::warmup::{self, Ladder, Overflow};
use proto::v1::{ListWarmupsRequest, RemoveWarmupRequest, SetWarmupRequest, Warmup, WarmupOverflow};
use serde_json::{Value, json};

/// Days of a plan that people are shown; `--json` has all.
const DAYS: usize = 7;

/// Carries a command out.
pub async fn run(command: WarmupCommand, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    match command {
        WarmupCommand::List => list(reach, out).await,
        WarmupCommand::Set(args) => set(args, reach, out).await,
        WarmupCommand::Remove { route, site } => {
            let request = RemoveWarmupRequest { route: route.clone(), site: site.unwrap_or_default() };
            let removed = reach.api().await?.delivery().remove_warmup(request).await?.into_inner().removed;
            out.answer(&json!({"removed": removed}), || {
                if removed {
                    format!("{route} is no longer warmed up: nothing caps it")
                } else {
                    "there is no such plan; `mailfleet warmup list` shows them".to_owned()
                }
            })?;
            Ok(if removed { Exit::Ok } else { Exit::Finding })
        }
        WarmupCommand::Forecast { route, messages, site } => {
            forecast(&route, site.as_deref().unwrap_or(""), messages, reach, out).await
        }
    }
}

async fn all(reach: &Reach) -> anyhow::Result<Vec<Warmup>> {
    Ok(reach.api().await?.delivery().list_warmups(ListWarmupsRequest {}).await?.into_inner().warmups)
}

async fn list(reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let warmups = all(reach).await?;
    out.answer(&warmups.iter().map(as_json).collect::<Vec<_>>(), || {
        if warmups.is_empty() {
            return "no route is warmed up; `mailfleet warmup set ROUTE` begins with one".to_owned();
        }
        warmups.iter().map(view).collect::<Vec<_>>().join("\n")
    })?;
    Ok(Exit::Ok)
}

async fn set(args: WarmupArgs, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    if let Some(config) = reach.sender()
        && !config.routes.is_empty()
        && !config.routes.contains_key(&args.route)
    {
        let known: Vec<&str> = config.routes.keys().map(String::as_str).collect();
        let text = format!("there is no route {:?} in the configuration; there are {}", args.route, known.join(", "));
        return Err(Failure::usage(text));
    }
    let warmup = Warmup {
        route: args.route,
        site: args.site.unwrap_or_default(),
        ladder: args.ladder.map(Into::into).unwrap_or_default(),
        rung: u32::from(args.rung) - 1,
        overflow: match args.overflow {
            Overflow::Routes => WarmupOverflow::Routes.into(),
            Overflow::Wait => WarmupOverflow::Wait.into(),
        },
        spread: prost_types::Duration::try_from(args.spread).ok(),
        held: args.hold,
        ..Warmup::default()
    };
    let request = SetWarmupRequest { warmup: Some(warmup) };
    let set = reach.api().await?.delivery().set_warmup(request).await?.into_inner().warmup.unwrap_or_default();
    out.answer(&as_json(&set), || view(&set))?;
    Ok(Exit::Ok)
}

async fn forecast(route: &str, site: &str, messages: u64, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let warmups = all(reach).await?;
    let Some(plan) = warmups.iter().find(|plan| plan.route == route && plan.site == site) else {
        return Err(Failure::usage(format!(
            "there is no plan for {}; `mailfleet warmup list` shows them",
            named(route, site)
        )));
    };
    let ladder = Ladder::try_from(plan.ladder.clone())?;
    let rung = u16::try_from(plan.rung).unwrap_or(u16::MAX);
    let today = if plan.cap > 0 { plan.cap } else { ladder.cap(rung).unwrap_or(u32::MAX) };
    let days = warmup::forecast(&ladder, rung, today.saturating_sub(plan.taken), messages);
    let last = service::clock::now().date_naive() + chrono::Days::new(u64::from(days) - 1);
    out.answer(&json!({"messages": messages, "days": days, "last_day": last}), || match days {
        1 => format!("{} messages go today", grouped(messages)),
        _ => format!("{} messages take {days} days, until {last}, if every day is a good one", grouped(messages)),
    })?;
    Ok(Exit::Ok)
}

fn named(route: &str, site: &str) -> String {
    if site.is_empty() { safe(route) } else { format!("{} at {}", safe(route), safe(site)) }
}

fn view(plan: &Warmup) -> String {
    let rungs = plan.ladder.len();
    let place = if plan.rung as usize >= rungs {
        "the ladder is climbed: nothing caps it".to_owned()
    } else {
        let cap = if plan.cap > 0 { plan.cap } else { plan.ladder[plan.rung as usize] };
        let held = if plan.held { ", held" } else { "" };
        format!("{} of {} given out today, rung {} of {rungs}{held}", grouped(plan.taken), grouped(cap), plan.rung + 1)
    };
    let overflow = match plan.overflow() {
        WarmupOverflow::Unspecified | WarmupOverflow::Routes => "takes other routes",
        WarmupOverflow::Wait => "waits",
    };
    let mut text = format!("{}: {place}; what is above {overflow}\n", named(&plan.route, &plan.site));
    if !plan.days.is_empty() {
        let mut table = Table::new(1, &["  day", "rung", "cap", "given out", "step", "why"]);
        for day in plan.days.iter().take(DAYS) {
            table.row(vec![
                format!("  {}", day.day),
                (day.rung + 1).to_string(),
                grouped(day.cap),
                grouped(day.taken),
                day.step.clone(),
                safe(&day.why),
            ]);
        }
        text.push_str(&table.text());
    }
    text
}

fn as_json(plan: &Warmup) -> Value {
    let days = plan.days.iter().map(|day| {
        json!({"day": day.day, "rung": day.rung + 1, "cap": day.cap, "taken": day.taken, "step": day.step, "why": day.why})
    });
    json!({
        "route": plan.route, "site": plan.site, "ladder": plan.ladder, "rung": plan.rung + 1, "held": plan.held,
        "overflow": match plan.overflow() {
            WarmupOverflow::Unspecified | WarmupOverflow::Routes => Overflow::Routes.as_str(),
            WarmupOverflow::Wait => Overflow::Wait.as_str(),
        },
        "spread_s": plan.spread.as_ref().map(|span| span.seconds), "cap": plan.cap, "taken": plan.taken,
        "created_at": plan.created_at.as_ref().map(api::time), "days": days.collect::<Vec<_>>(),
    })
}
