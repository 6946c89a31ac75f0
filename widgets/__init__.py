"""What a person touches in a page. A view holds no truth and never needs torch: it is handed functions and records."""
