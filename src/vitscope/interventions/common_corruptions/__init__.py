"""The fifteen common corruptions of Hendrycks and Dietterich, as functions of one picture."""
