"""The algorithms: networks' losses as terms, recipes as compositions of terms."""
