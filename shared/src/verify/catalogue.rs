//! The schemes that come along, one file each.

use super::scheme::Scheme;

macro_rules! catalogue {
    ($($name:literal)*) => {
        /// In alphabetical order.
        const CATALOGUE: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("providers/", $name, ".toml")))),*];
    };
}

catalogue! {
    "adyen-platform"
    "aftership"
    "airtable"
    "airwallex"
    "anthropic"
    "asana"
    "attio"
    "auth0"
    "bitbucket"
    "bitgo"
    "box"
    "brex"
    "buildkite"
    "cal-com"
    "calendly"
    "cashfree"
    "chargebee"
    "checkout"
    "checkr"
    "circle"
    "circleci"
    "clerk"
    "clickup"
    "close"
    "cloudconvert"
    "cloudflare-notifications"
    "cloudflare-stream"
    "cloudinary"
    "coinbase-cdp"
    "coinbase-commerce"
    "commercelayer"
    "creem"
    "customerio"
    "datadog"
    "deepgram"
    "discord"
    "docusign"
    "dodopayments"
    "dropbox"
    "dwolla"
    "dyte"
    "elevenlabs"
    "expo"
    "finch"
    "fingerprint"
    "flinks"
    "flutterwave"
    "flutterwave-v3"
    "front"
    "fusionauth"
    "getstream"
    "gitea"
    "github"
    "gitlab"
    "gitlab-signed"
    "gocardless"
    "google-channels"
    "gr4vy"
    "grafana"
    "helpscout"
    "heroku"
    "hookdeck"
    "hubspot"
    "hubspot-v1"
    "hubspot-v2"
    "huggingface"
    "imagekit"
    "increase"
    "intercom"
    "iron"
    "jira"
    "klarna"
    "klaviyo"
    "kontent-ai"
    "launchdarkly"
    "lemonsqueezy"
    "line"
    "linear"
    "lithic"
    "liveblocks"
    "livekit"
    "loops"
    "mailgun"
    "mandrill"
    "marqeta"
    "mercadopago"
    "messagebird"
    "meta"
    "metronome"
    "modern-treasury"
    "mollie"
    "moov"
    "ms-graph"
    "ms-teams"
    "mux"
    "nango"
    "netlify"
    "nmi"
    "notion"
    "okta"
    "onfido"
    "openai"
    "orb"
    "paddle"
    "pagerduty"
    "pandadoc"
    "paymongo"
    "paystack"
    "persona"
    "pipedrive"
    "plaid"
    "polar"
    "postmark"
    "privy"
    "pusher"
    "qonto"
    "qstash"
    "quickbooks"
    "razorpay"
    "recall-ai"
    "recurly"
    "render"
    "replicate"
    "resend"
    "retell"
    "revenuecat"
    "revolut"
    "sanity"
    "schematic"
    "seam"
    "sellsy"
    "sendgrid"
    "sentry"
    "shopify"
    "slack"
    "snyk"
    "sonarqube"
    "square"
    "standard-webhooks"
    "stripe"
    "supabase-auth"
    "surge"
    "svix"
    "tally"
    "telegram"
    "telnyx"
    "terra"
    "todoist"
    "trello"
    "twitch"
    "typeform"
    "vercel"
    "viber"
    "vonage"
    "webex"
    "webflow"
    "whop"
    "wise"
    "woocommerce"
    "workos"
    "worldpay"
    "x-twitter"
    "xendit"
    "xero"
    "zendesk"
    "zoom"
}

impl Scheme {
    /// An entry of the catalogue.
    pub fn named(name: &str) -> Option<Self> {
        let (_, text) = CATALOGUE.iter().find(|(known, _)| *known == name)?;
        Self::from_toml(text.parse().ok()?).ok()
    }

    /// The catalogue's names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CATALOGUE.iter().map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_can_be_read_and_they_are_in_order() {
        for (name, text) in CATALOGUE {
            let read = Scheme::from_toml(text.parse().unwrap_or_default());
            assert!(read.is_ok(), "{name}: {}", read.unwrap_err());
        }
        assert!(CATALOGUE.is_sorted_by(|a, b| a.0 < b.0));
        assert!(Scheme::named("nobody").is_none());
    }
}
