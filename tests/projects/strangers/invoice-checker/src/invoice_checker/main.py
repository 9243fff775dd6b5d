#!/usr/bin/env python
from invoice_checker.crew import InvoiceChecker


def run():
    InvoiceChecker().crew().kickoff(inputs={"invoice": "No. 4711 over 746 DKK"})
