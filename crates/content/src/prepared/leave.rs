//! Where a mail says to unsubscribe: in its templates and in its header.

use super::{FEEDBACK_SENDER, Prepared, RenderRequest};
use crate::engine::{Part, scope, variables};
use crate::header::Fields;
use crate::validate::{https_url, mailto_url};
use crate::{RenderError, ReturnPath};
use minijinja::value::Value;

/// What the templates of one mail see, and where it says to unsubscribe.
pub(super) struct View {
    pub(super) scope: Value,
    /// The address that its caller gave.
    pub(super) own_url: Option<String>,
    /// The fleet's own.
    pub(super) hosted: Option<String>,
}

/// The ways that a caller gave.
pub(super) struct UnsubscribeParts {
    pub(super) url: Option<Part>,
    pub(super) mailto: Option<Part>,
    pub(super) one_click: bool,
}

impl Prepared {
    /// What templates see of this mail; `stand_in` is where it unsubscribes if nothing else says so.
    pub(super) fn view(&self, request: &RenderRequest<'_>, stand_in: Option<&str>) -> Result<View, RenderError> {
        let variables = variables(request.variables, &self.limits)?;
        let hosted = self.marks.as_ref().and_then(|marks| marks.leave(request.message_id));
        // Of characters alone that HTML does not escape.
        let value = hosted.clone().or_else(|| stand_in.map(str::to_owned)).map(Value::from_safe_string);
        let seen = scope(&variables, value, &self.defaults);
        let Some(UnsubscribeParts { url: Some(part), .. }) = &self.unsubscribe else {
            return Ok(View { scope: seen, own_url: None, hosted });
        };
        let url = self.engine.render(part, &seen)?;
        let refused = |problem| RenderError::Header { field: "unsubscribe.url".to_owned(), problem };
        let url = https_url(&url).map_err(refused)?.to_owned();
        let scope = scope(&variables, Some(Value::from(url.as_str())), &self.defaults);
        Ok(View { scope, own_url: Some(url), hosted })
    }

    /// Adds the fields that tell how to unsubscribe and whose feedback it is.
    pub(super) fn list_fields(
        &self,
        fields: &mut Fields,
        request: &RenderRequest<'_>,
        view: &View,
    ) -> Result<(), RenderError> {
        let hosted = view.hosted.as_ref().filter(|_| self.hosted);
        let mut ways: Vec<String> =
            hosted.or(view.own_url.as_ref()).map(|url| format!("<{url}>")).into_iter().collect();
        let given = self.unsubscribe.as_ref();
        let own_mailto = given.and_then(|given| given.mailto.as_ref());
        if own_mailto.is_none()
            && hosted.is_some()
            && let ReturnPath::PerMessage(domain) = &self.return_path
            && let Some(mailto) = self.marks.as_ref().and_then(|marks| marks.leave_by_mail(request.message_id, domain))
        {
            ways.push(format!("<{mailto}>"));
        }
        if let Some(part) = own_mailto {
            let mailto = self.engine.render(part, &view.scope)?;
            let refused = |problem| RenderError::Header { field: "unsubscribe.mailto".to_owned(), problem };
            ways.push(format!("<{}>", mailto_url(&mailto).map_err(refused)?));
        }
        if !ways.is_empty() {
            fields.push("List-Unsubscribe", ways.join(",\r\n "));
        }
        if hosted.is_some() || given.is_some_and(|given| given.one_click && given.url.is_some()) {
            fields.push("List-Unsubscribe-Post", "List-Unsubscribe=One-Click");
        }
        if self.feedback {
            let campaign = request.campaign.map_or_else(String::new, |id| id.as_uuid().simple().to_string());
            let tenant = request.tenant.as_uuid().simple();
            let id = format!("{campaign}:{tenant}:{}:{FEEDBACK_SENDER}", self.lane.as_str());
            fields.push("Feedback-ID", id);
        }
        Ok(())
    }
}
